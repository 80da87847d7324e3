//! Every route of the API, called by nobody, by somebody with a worthless token, and by those whom its action is not for.

use reqwest::Method;
use vocabulary::{ErrorCode, Problem};

use super::support::World;
use crate::{Access, Route, routes};

/// Routes that everybody may call. Whoever adds one says why in the table, and here.
const PUBLIC: [&str; 13] = [
    "GET /v1/deployment",
    "GET /v1/health",
    "GET /v1/log/checkpoint",
    "GET /v1/log/cosigned-checkpoint",
    "GET /v1/log/tile/{*path}",
    "GET /v1/log/witness-policy",
    "GET /v1/openapi.json",
    "GET /v1/seal",
    "POST /v1/enrolments",
    "POST /v1/enrolments/complete",
    "POST /v1/login",
    "POST /v1/nodes/enrol",
    "POST /v1/seal/open",
];

async fn call(world: &World, route: &Route, token: Option<&str>) -> Problem {
    let path = route
        .path
        .split('/')
        .map(|part| match part {
            "{index}" => "7",
            "{*path}" => "a/b",
            "{digest}" => "sha256:0707070707070707070707070707070707070707070707070707070707070707",
            part if part.starts_with('{') => "0190b5b4-0000-7000-8000-000000000000",
            part => part,
        })
        .collect::<Vec<_>>()
        .join("/");
    let method: Method = route.method.parse().unwrap();
    let body = matches!(route.body, crate::Payload::Json(_)).then(|| serde_json::json!({}));
    match world.send::<serde_json::Value>(method, &path, token, body, &[]).await {
        Ok(answer) => panic!("{} {}: {answer}", route.method, route.path),
        Err(problem) => problem,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_and_the_wrong_kind_get_nothing() {
    let mut world = World::start().await;
    let tenant = world.tenant("acme").await;
    let operator = world.operator().await;
    for (token, address) in [None, Some("swm_ses_nonsense"), Some("")].into_iter().zip(2..) {
        // One source is refused more slowly after so many; here all are to be answered.
        world.come_from(address);
        for route in routes().iter().filter(|route| matches!(route.access, Access::Action(_))) {
            let problem = call(&world, route, token).await;
            assert_eq!(problem.code, ErrorCode::Unauthenticated, "{} {}", route.method, route.path);
            assert!(problem.audit_index.is_none() && problem.rules.is_empty());
        }
    }
    let mut public = Vec::new();
    for route in routes() {
        let Access::Action(action) = route.access else {
            public.push(format!("{} {}", route.method, route.path));
            continue;
        };
        let info = policy::ActionInfo::named(action).unwrap();
        for (kind, token) in [(policy::EntityKind::Operator, &operator), (policy::EntityKind::User, &tenant.token)] {
            if !info.principals.contains(&kind) {
                let problem = call(&world, &route, Some(token)).await;
                // A body that does not fit is told first; what it would have done is not.
                let told = [ErrorCode::Forbidden, ErrorCode::NotFound, ErrorCode::InvalidRequest];
                assert!(told.contains(&problem.code), "{} {} by {kind:?}: {}", route.method, route.path, problem.code);
            }
        }
    }
    public.sort();
    assert_eq!(public, PUBLIC);
    world.server.stop().await;
}
