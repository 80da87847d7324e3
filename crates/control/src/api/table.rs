//! The table of routes: the router, the permissions and the OpenAPI document are all made from it, so they cannot differ.
//!
//! A route names its Cedar action by type. The handler gets a [`Call`] of that action and can obtain a permit for no other,
//! and every operation takes its permit by value: a route that forgets to decide does not compile.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, on};
use http::{Request, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::api::call::{Call, Public};
use crate::api::json;
use crate::api::problem::Failure;
use crate::api::reach::Reach;
use crate::metrics::Listener;
use crate::spans;
use crate::state::Control;

/// Who may call a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// Everybody, for this reason.
    Public(&'static str),
    /// Whoever is permitted this Cedar action.
    Action(&'static str),
}

/// What a route is, for the document and for the tests that list all routes.
#[derive(Debug, Clone)]
pub struct Route {
    /// `GET`, `POST`, `PUT` or `DELETE`.
    pub method: &'static str,
    /// The path, with `{id}` for parameters.
    pub path: &'static str,
    /// `noun_verb`.
    pub id: &'static str,
    /// One sentence.
    pub summary: &'static str,
    /// Who may call it.
    pub access: Access,
    /// Whether the action wants a fresh factor bound to the request.
    pub step_up: bool,
    /// The schema of the JSON body, if it takes one.
    pub request: Option<Value>,
    /// The schema of the JSON answer; `None` is a stream of bytes.
    pub response: Option<Value>,
    /// The status of success.
    pub status: u16,
    /// Query parameters: name and meaning.
    pub query: &'static [(&'static str, &'static str)],
}

/// A body that is no JSON: an object, a stream, an empty body.
#[derive(Debug)]
pub(crate) struct Raw(pub(crate) Body);

/// Collects routes.
pub(crate) struct Table {
    router: Router<Arc<Control>>,
    routes: Vec<Route>,
    schemas: BTreeMap<String, Value>,
}

/// The words of a route: method, path, `noun_verb`, summary.
#[derive(Clone, Copy)]
pub(crate) struct Words(pub(crate) &'static str, pub(crate) &'static str, pub(crate) &'static str, pub(crate) &'static str);

impl Table {
    pub(crate) fn new() -> Self {
        Self { router: Router::new(), routes: Vec::new(), schemas: BTreeMap::new() }
    }

    /// A route that takes JSON and answers JSON.
    pub(crate) fn json<A, Q, R, F, Fut>(&mut self, words: Words, query: &'static [(&'static str, &'static str)], handler: F)
    where
        A: policy::Action,
        Q: DeserializeOwned + ToSchema + Send + 'static,
        R: Serialize + ToSchema + Send + 'static,
        F: Fn(Call<A>, Q) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<R, Failure>> + Send + 'static,
    {
        let request = Some(self.schema::<Q>());
        let route = self.route::<A, R>(words, query, request);
        self.add(route, move |control, request: Request<Body>, route_path| {
            let handler = handler.clone();
            async move {
                let (parts, body) = request.into_parts();
                // Who asks comes before what is asked: a stranger's body is not even read.
                let caller = control.authenticate(&parts).await?;
                let bytes = json::read(&parts.headers, body).await?;
                let parsed = json::parse::<Q>(&bytes)?;
                let tracer = control.tracer.clone();
                let call = Call::<A>::new(control, &parts, route_path, caller, &bytes)?;
                let reach = Reach::of(&call);
                let answer = noted(reach, telemetry::part(&tracer, A::NAME, handler(call, parsed)).await).await?;
                Ok(answer_json(&answer, A::NAME))
            }
        });
    }

    /// A route without a body that answers JSON.
    pub(crate) fn get<A, R, F, Fut>(&mut self, words: Words, query: &'static [(&'static str, &'static str)], handler: F)
    where
        A: policy::Action,
        R: Serialize + ToSchema + Send + 'static,
        F: Fn(Call<A>) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<R, Failure>> + Send + 'static,
    {
        let route = self.route::<A, R>(words, query, None);
        self.add(route, move |control, request: Request<Body>, route_path| {
            let handler = handler.clone();
            async move {
                let (parts, _) = request.into_parts();
                let caller = control.authenticate(&parts).await?;
                let tracer = control.tracer.clone();
                let call = Call::<A>::new(control, &parts, route_path, caller, b"")?;
                let reach = Reach::of(&call);
                let answer = noted(reach, telemetry::part(&tracer, A::NAME, handler(call)).await).await?;
                Ok(answer_json(&answer, A::NAME))
            }
        });
    }

    /// A route whose body or answer is a stream of bytes.
    pub(crate) fn raw<A, F, Fut>(&mut self, words: Words, query: &'static [(&'static str, &'static str)], handler: F)
    where
        A: policy::Action,
        F: Fn(Call<A>, Raw) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<Response, Failure>> + Send + 'static,
    {
        let mut route = self.route::<A, Value>(words, query, None);
        route.response = None;
        self.add(route, move |control, request: Request<Body>, route_path| {
            let handler = handler.clone();
            async move {
                let (parts, body) = request.into_parts();
                let caller = control.authenticate(&parts).await?;
                let tracer = control.tracer.clone();
                let call = Call::<A>::new(control, &parts, route_path, caller, b"")?;
                let reach = Reach::of(&call);
                noted(reach, telemetry::part(&tracer, A::NAME, handler(call, Raw(body))).await).await
            }
        });
    }

    /// A route for everybody, with the reason why; takes JSON when `Q` is not `()`.
    pub(crate) fn public<Q, R, F, Fut>(&mut self, words: Words, reason: &'static str, handler: F)
    where
        Q: PublicBody,
        R: Serialize + ToSchema + 'static,
        F: Fn(Call<Public>, Q) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<R, Failure>> + Send + 'static,
    {
        let request = Q::schema(self);
        let response = self.schema::<R>();
        let Words(method, path, id, summary) = words;
        let route = Route {
            method,
            path,
            id,
            summary,
            access: Access::Public(reason),
            step_up: false,
            request,
            response: Some(response),
            status: 200,
            query: &[],
        };
        self.add(route, move |control, request: Request<Body>, route_path| {
            let handler = handler.clone();
            async move {
                let (parts, body) = request.into_parts();
                let parsed = Q::read(&parts, body).await?;
                let call = Call::<Public>::public(control, &parts, route_path)?;
                let answer = handler(call, parsed).await?;
                Ok(answer_json(&answer, ""))
            }
        });
    }

    /// A public route that answers bytes (log tiles, the OpenAPI document).
    pub(crate) fn public_raw<F, Fut>(&mut self, words: Words, reason: &'static str, handler: F)
    where
        F: Fn(Call<Public>) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<Response, Failure>> + Send + 'static,
    {
        let Words(method, path, id, summary) = words;
        let route = Route {
            method,
            path,
            id,
            summary,
            access: Access::Public(reason),
            step_up: false,
            request: None,
            response: None,
            status: 200,
            query: &[],
        };
        self.add(route, move |control, request: Request<Body>, route_path| {
            let handler = handler.clone();
            async move { handler(Call::<Public>::public(control, &request.into_parts().0, route_path)?).await }
        });
    }

    fn route<A: policy::Action, R: ToSchema>(
        &mut self,
        Words(method, path, id, summary): Words,
        query: &'static [(&'static str, &'static str)],
        request: Option<Value>,
    ) -> Route {
        let response = Some(self.schema::<R>());
        Route {
            method,
            path,
            id,
            summary,
            access: Access::Action(A::NAME),
            step_up: A::STEP_UP,
            request,
            response,
            status: 200,
            query,
        }
    }

    /// The schema of a type, with the types that it names put among the components.
    pub(crate) fn schema<T: ToSchema>(&mut self) -> Value {
        let mut named = Vec::new();
        T::schemas(&mut named);
        for (name, schema) in named {
            let schema = serde_json::to_value(schema).unwrap_or(Value::Null);
            self.schemas.entry(name).or_insert(schema);
        }
        serde_json::to_value(T::schema()).unwrap_or(Value::Null)
    }

    /// Puts a type among the components: a page names the schema of its items and does not bring it.
    pub(crate) fn component<T: ToSchema>(&mut self) {
        let schema = self.schema::<T>();
        self.schemas.entry(T::name().into_owned()).or_insert(schema);
    }

    fn add<F, Fut>(&mut self, route: Route, serve: F)
    where
        F: Fn(Arc<Control>, Request<Body>, &'static str) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<Response, Failure>> + Send + 'static,
    {
        let filter = method_filter(route.method);
        let (verb, path) = (route.method, route.path);
        let method = on(filter, move |axum::extract::State(control): axum::extract::State<Arc<Control>>, request: Request<Body>| {
            let serve = serve.clone();
            async move {
                let begun = tokio::time::Instant::now();
                let span = spans::request(&control.tracer, verb, path, request.headers());
                let serving = serve(Arc::clone(&control), request, path);
                let response = telemetry::within(span.as_ref().and_then(telemetry::Open::context), serving).await.unwrap_or_else(IntoResponse::into_response);
                control.metrics.request(Listener::Api, verb, path, response.status(), begun.elapsed());
                spans::answered(span, response.status());
                response
            }
        });
        self.router = std::mem::take(&mut self.router).route(path, method);
        self.routes.push(route);
    }

    pub(crate) fn finish(self) -> (Router<Arc<Control>>, Vec<Route>, Value) {
        let document = document(&self.routes, self.schemas);
        (self.router, self.routes, document)
    }
}

/// What a public route takes.
pub(crate) trait PublicBody: Sized + Send + 'static {
    fn schema(table: &mut Table) -> Option<Value>;
    fn read(parts: &http::request::Parts, body: Body) -> impl Future<Output = Result<Self, Failure>> + Send;
}

impl PublicBody for () {
    fn schema(_: &mut Table) -> Option<Value> {
        None
    }
    async fn read(_: &http::request::Parts, _: Body) -> Result<Self, Failure> {
        Ok(())
    }
}

impl<T: DeserializeOwned + ToSchema + Send + 'static> PublicBody for axum::Json<T> {
    fn schema(table: &mut Table) -> Option<Value> {
        Some(table.schema::<T>())
    }
    async fn read(parts: &http::request::Parts, body: Body) -> Result<Self, Failure> {
        let bytes = json::read(&parts.headers, body).await?;
        json::parse(&bytes).map(axum::Json)
    }
}

/// An answer, with what was reached for in vain recorded.
async fn noted<T>(reach: Option<Reach>, answer: Result<T, Failure>) -> Result<T, Failure> {
    match (answer, reach) {
        (Err(failure), Some(reach)) => Err(reach.recorded(failure).await),
        (answer, _) => answer,
    }
}

/// The filter of a route's method.
pub(crate) fn method_filter(method: &str) -> MethodFilter {
    match method {
        "POST" => MethodFilter::POST,
        "PUT" => MethodFilter::PUT,
        "DELETE" => MethodFilter::DELETE,
        _ => MethodFilter::GET,
    }
}

pub(crate) fn answer_json<R: Serialize>(answer: &R, action: &'static str) -> Response {
    match serde_json::to_vec(answer) {
        Ok(body) => {
            let mut response = (StatusCode::OK, body).into_response();
            let headers = response.headers_mut();
            headers.insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
            headers.insert(http::header::CACHE_CONTROL, http::HeaderValue::from_static("no-store"));
            response
        }
        Err(error) => Failure::internal(format!("answer of {action} cannot be written: {error}")).into_response(),
    }
}

/// The OpenAPI 3.1 document.
fn document(routes: &[Route], mut schemas: BTreeMap<String, Value>) -> Value {
    let problem = serde_json::to_value(<vocabulary::Problem as utoipa::PartialSchema>::schema()).unwrap_or(Value::Null);
    let mut named = Vec::new();
    <vocabulary::Problem as ToSchema>::schemas(&mut named);
    for (name, schema) in named {
        schemas.entry(name).or_insert_with(|| serde_json::to_value(schema).unwrap_or(Value::Null));
    }
    schemas.insert("Problem".to_owned(), problem);
    let mut paths: BTreeMap<&str, serde_json::Map<String, Value>> = BTreeMap::new();
    for route in routes {
        let mut parameters: Vec<Value> = path_parameters(route.path)
            .map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}))
            .collect();
        parameters.extend(route.query.iter().map(|(name, meaning)| {
            json!({"name": name, "in": "query", "required": false, "description": meaning, "schema": {"type": "string"}})
        }));
        let content = match &route.response {
            Some(schema) => json!({"application/json": {"schema": schema}}),
            None => json!({"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}),
        };
        let mut operation = json!({
            "operationId": route.id,
            "summary": route.summary,
            "parameters": parameters,
            "responses": {
                route.status.to_string(): {"description": "done", "content": content},
                "default": {"description": "a problem (RFC 9457)", "content": {
                    "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}},
            },
        });
        if let Some(fields) = operation.as_object_mut() {
            if let Some(schema) = &route.request {
                fields.insert(
                    "requestBody".into(),
                    json!({"required": true, "content": {"application/json": {"schema": schema}}}),
                );
            }
            match &route.access {
                Access::Public(reason) => {
                    fields.insert("x-swarm-public".into(), json!(reason));
                    fields.insert("security".into(), json!([]));
                }
                Access::Action(action) => {
                    fields.insert("x-swarm-action".into(), json!(action));
                    fields.insert("x-swarm-step-up".into(), json!(route.step_up));
                    fields.insert("security".into(), json!([{"token": []}]));
                }
            }
            paths.entry(route.path).or_default().insert(route.method.to_ascii_lowercase(), operation);
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Swarm",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "The control plane's API. Every mutation answers with the index of its audit entry.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "bearerFormat": "swm_…"}},
        },
    })
}

fn path_parameters(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).map(|name| name.trim_start_matches('*'))
}
