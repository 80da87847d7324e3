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
use serde_json::Value;
use utoipa::ToSchema;

use crate::api::call::{Call, Public, REPEATABLE, Spot};
use crate::api::document::document;
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
    /// What the body is.
    pub body: Payload,
    /// What a good answer is.
    pub answer: Answered,
    /// Query parameters: name and meaning.
    pub query: &'static [(&'static str, &'static str)],
    /// Headers beside the credential.
    pub headers: Vec<Header>,
}

impl Route {
    /// The path as the document has it, which knows no parameter of several parts.
    #[must_use]
    pub fn documented_path(&self) -> String {
        self.path.replace("{*", "{")
    }
}

/// What the body of a request is.
#[derive(Debug, Clone, PartialEq)]
pub enum Payload {
    /// There is none.
    Nothing,
    /// JSON of this schema.
    Json(Value),
    /// Bytes as they are.
    Bytes,
}

/// What a good answer is.
#[derive(Debug, Clone, PartialEq)]
pub enum Answered {
    /// 200 with JSON of this schema.
    Json(Value),
    /// 200 with bytes of this media type.
    Bytes(&'static str),
    /// 204.
    Nothing,
}

impl Answered {
    /// The status of success.
    #[must_use]
    pub const fn status(&self) -> u16 {
        match self {
            Self::Json(_) | Self::Bytes(_) => 200,
            Self::Nothing => 204,
        }
    }
}

/// A header that a route reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Its name.
    pub name: &'static str,
    /// What it says.
    pub meaning: &'static str,
    /// Whether the route is refused without it.
    pub required: bool,
}

const STEP_UP: Header = Header { name: "Swarm-Step-Up", meaning: "the confirmation of this very request", required: false };
const REPEATED: Header = Header { name: "Idempotency-Key", meaning: "a request that is sent again under the same key is answered as the first time", required: false };

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
        let (body, answer) = (Payload::Json(self.schema::<Q>()), Answered::Json(self.schema::<R>()));
        let route = Self::route::<A>(words, query, body, answer);
        self.add(route, move |control, request: Request<Body>, spot| {
            let handler = handler.clone();
            async move {
                let (parts, body) = request.into_parts();
                // Who asks comes before what is asked: a stranger's body is not even read.
                let caller = control.authenticate(&parts).await?;
                let bytes = json::read(&parts.headers, body).await?;
                let parsed = json::parse::<Q>(&bytes)?;
                let tracer = control.tracer.clone();
                let call = Call::<A>::new(control, &parts, spot, caller, &bytes)?;
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
        let answer = Answered::Json(self.schema::<R>());
        let route = Self::route::<A>(words, query, Payload::Nothing, answer);
        self.add(route, move |control, request: Request<Body>, spot| {
            let handler = handler.clone();
            async move {
                let (parts, _) = request.into_parts();
                let caller = control.authenticate(&parts).await?;
                let tracer = control.tracer.clone();
                let call = Call::<A>::new(control, &parts, spot, caller, b"")?;
                let reach = Reach::of(&call);
                let answer = noted(reach, telemetry::part(&tracer, A::NAME, handler(call)).await).await?;
                Ok(answer_json(&answer, A::NAME))
            }
        });
    }

    /// A route whose body or answer is a stream of bytes. `PUT` takes one.
    pub(crate) fn raw<A, F, Fut>(&mut self, words: Words, query: &'static [(&'static str, &'static str)], answer: Answered, handler: F)
    where
        A: policy::Action,
        F: Fn(Call<A>, Raw) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<Response, Failure>> + Send + 'static,
    {
        let body = if words.0 == "PUT" { Payload::Bytes } else { Payload::Nothing };
        let route = Self::route::<A>(words, query, body, answer);
        self.add(route, move |control, request: Request<Body>, spot| {
            let handler = handler.clone();
            async move {
                let (parts, body) = request.into_parts();
                let caller = control.authenticate(&parts).await?;
                let tracer = control.tracer.clone();
                let call = Call::<A>::new(control, &parts, spot, caller, b"")?;
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
        let body = Q::schema(self);
        let answer = Answered::Json(self.schema::<R>());
        let Words(method, path, id, summary) = words;
        let route = Route {
            method,
            path,
            id,
            summary,
            access: Access::Public(reason),
            step_up: false,
            body,
            answer,
            query: &[],
            headers: Vec::new(),
        };
        self.add(route, move |control, request: Request<Body>, spot| {
            let handler = handler.clone();
            async move {
                let (parts, body) = request.into_parts();
                let parsed = Q::read(&parts, body).await?;
                let call = Call::<Public>::public(control, &parts, spot)?;
                let answer = handler(call, parsed).await?;
                Ok(answer_json(&answer, ""))
            }
        });
    }

    /// A public route that answers bytes (log tiles, the OpenAPI document).
    pub(crate) fn public_raw<F, Fut>(&mut self, words: Words, reason: &'static str, media: &'static str, handler: F)
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
            body: Payload::Nothing,
            answer: Answered::Bytes(media),
            query: &[],
            headers: Vec::new(),
        };
        self.add(route, move |control, request: Request<Body>, spot| {
            let handler = handler.clone();
            async move { handler(Call::<Public>::public(control, &request.into_parts().0, spot)?).await }
        });
    }

    /// The route that was just added reads this header, too.
    pub(crate) fn with(&mut self, header: Header) {
        if let Some(route) = self.routes.last_mut() {
            route.headers.push(header);
        }
    }

    fn route<A: policy::Action>(
        Words(method, path, id, summary): Words,
        query: &'static [(&'static str, &'static str)],
        body: Payload,
        answer: Answered,
    ) -> Route {
        let headers = [(A::STEP_UP, STEP_UP), (REPEATABLE.contains(&A::NAME), REPEATED)];
        Route {
            method,
            path,
            id,
            summary,
            access: Access::Action(A::NAME),
            step_up: A::STEP_UP,
            body,
            answer,
            query,
            headers: headers.into_iter().filter_map(|(takes, header)| takes.then_some(header)).collect(),
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
        F: Fn(Arc<Control>, Request<Body>, Spot) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<Response, Failure>> + Send + 'static,
    {
        let filter = method_filter(route.method);
        let (verb, path) = (route.method, route.path);
        let spot = Spot { path, query: route.query };
        let method = on(filter, move |axum::extract::State(control): axum::extract::State<Arc<Control>>, request: Request<Body>| {
            let serve = serve.clone();
            async move {
                let begun = tokio::time::Instant::now();
                let span = spans::request(&control.tracer, verb, path, request.headers());
                let serving = serve(Arc::clone(&control), request, spot);
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
    fn schema(table: &mut Table) -> Payload;
    fn read(parts: &http::request::Parts, body: Body) -> impl Future<Output = Result<Self, Failure>> + Send;
}

impl PublicBody for () {
    fn schema(_: &mut Table) -> Payload {
        Payload::Nothing
    }
    async fn read(_: &http::request::Parts, _: Body) -> Result<Self, Failure> {
        Ok(())
    }
}

impl<T: DeserializeOwned + ToSchema + Send + 'static> PublicBody for axum::Json<T> {
    fn schema(table: &mut Table) -> Payload {
        Payload::Json(table.schema::<T>())
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
