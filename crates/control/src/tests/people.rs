//! What people may grant, and what becomes of tokens: each test is an attack that must fail.

use reqwest::Method;
use serde_json::{Value, json};
use vocabulary::api::{IssuedToken, Page, Principal, TokenInfo, WhoAmI};
use vocabulary::{ErrorCode, Problem, TokenId};

use super::support::{Tenant, World};
use crate::limits::{REACHES_PER_MINUTE, TOKEN_CHAIN_MAX};

async fn token(world: &World, with: &str, lifetime_s: u64) -> Result<IssuedToken, Problem> {
    world.post("/v1/tokens", with, &json!({"note": "made", "lifetime_s": lifetime_s})).await
}

async fn lives(world: &World, token: &str) -> bool {
    match world.get::<WhoAmI>("/v1/whoami", token).await {
        Ok(_) => true,
        Err(problem) => {
            assert_eq!(problem.code, ErrorCode::Unauthenticated);
            false
        }
    }
}

async fn me(world: &World, tenant: &Tenant) -> WhoAmI {
    world.get("/v1/whoami", &tenant.token).await.unwrap()
}

/// The refusals that stand in a tenant's log, as kind and id of what they are about.
async fn refused(world: &World, tenant: vocabulary::TenantId) -> Vec<(String, String)> {
    let text = |event: &Value, name: &str| event[name].as_str().unwrap_or_default().to_owned();
    world.entries_of(tenant, "refused").await.iter().map(|event| (text(event, "resource_kind"), text(event, "resource"))).collect()
}

/// A service account with all rights was made, and its token, without a second factor: the way around every confirmation.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_account_and_its_token_want_a_person() {
    let world = World::start().await;
    let tenant = world.tenant("acme").await;
    let account = json!({"name": "rootbot", "roles": ["admin"], "clearance": "regulated"});
    let problem = world.post::<Principal>("/v1/service-accounts", &tenant.token, &account).await.unwrap_err();
    assert_eq!(problem.code, ErrorCode::StepUpRequired);
    // The person is told what they confirm.
    let told = problem.step_up.unwrap().summary;
    for word in ["make a service account", "`rootbot`", "`admin` (roles)", "`regulated` (clearance)"] {
        assert!(told.contains(word), "{told}");
    }
    let (robot, robots) = world.robot(&tenant, "robot", "admin", "regulated").await;
    let path = format!("/v1/service-accounts/{robot}/tokens");
    let problem = world.post::<IssuedToken>(&path, &tenant.token, &json!({"lifetime_s": 3600, "note": "more"})).await.unwrap_err();
    assert_eq!(problem.code, ErrorCode::StepUpRequired);
    let told = problem.step_up.unwrap().summary;
    assert!(told.contains("`robot`") && told.contains("`more` (note)") && told.contains("`3600 s` (life)"), "{told}");
    // The account itself, administrator that it is, makes no accounts, no users, and no tokens but its own.
    for (path, body) in [
        ("/v1/service-accounts", account.clone()),
        ("/v1/users", json!({"name": "friend", "roles": ["admin"], "clearance": "regulated"})),
        (path.as_str(), json!({"lifetime_s": 3600, "note": "mine"})),
    ] {
        let problem = world.post::<Value>(path, &robots, &body).await.unwrap_err();
        assert_eq!((problem.code, problem.step_up.is_none()), (ErrorCode::Forbidden, true), "{path}");
    }
    world.server.stop().await;
}

/// Nobody grants what they do not have: not to others, not to programs, not to themselves.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_grants_more_than_they_have() {
    let world = World::start().await;
    let tenant = world.tenant("acme").await;
    let (robot, _) = world.robot(&tenant, "robot", "engineer", "regulated").await;
    let me = me(&world, &tenant).await;
    world.change_principal(tenant.id, me.principal, |row| row.clearance = vocabulary::Sensitivity::Internal).await;
    let ask = async |path: &str, body: Value| {
        let method = if path.starts_with("/v1/principals/") { Method::PUT } else { Method::POST };
        let revision = world.control().store.get(tenant.id, store::Kind::PRINCIPAL, me.principal).await.unwrap().unwrap().revision.to_string();
        world.confirmed::<Value>(tenant.id, &tenant.token, (method, path), Some(body), &[("if-match", &revision)]).await
    };
    let rights = |name: Option<&str>, clearance: &str| match name {
        Some(name) => json!({"name": name, "roles": ["viewer"], "clearance": clearance}),
        None => json!({"roles": ["admin"], "clearance": clearance}),
    };
    let (myself, loan) = (format!("/v1/principals/{}", me.principal), format!("/v1/service-accounts/{robot}/tokens"));
    for (path, body) in [
        ("/v1/users", rights(Some("friend"), "regulated")),
        ("/v1/service-accounts", rights(Some("bot"), "confidential")),
        (myself.as_str(), rights(None, "regulated")),
        // The token of an account with more would be the same.
        (loan.as_str(), json!({"lifetime_s": 3600, "note": "loan"})),
    ] {
        let problem = ask(path, body).await.unwrap_err();
        assert_eq!(problem.code, ErrorCode::Forbidden, "{path}: {}", problem.detail);
        assert!(problem.detail.contains("above your own") && problem.audit_index.is_some(), "{path}: {}", problem.detail);
    }
    ask("/v1/users", rights(Some("friend"), "internal")).await.unwrap();
    ask("/v1/service-accounts", rights(Some("bot"), "internal")).await.unwrap();
    ask(&myself, rights(None, "internal")).await.unwrap();
    world.server.stop().await;
}

/// A short token made a long one, which lived on when the short one was revoked.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_takes_with_it_what_it_made() {
    let world = World::start().await;
    let tenant = world.tenant("acme").await;
    let parent = token(&world, &tenant.token, 600).await.unwrap();
    let problem = token(&world, &parent.token, 31_536_000).await.unwrap_err();
    assert_eq!(problem.code, ErrorCode::InvalidRequest);
    assert!(problem.detail.contains("`lifetime_s`"), "{}", problem.detail);
    let child = token(&world, &parent.token, 300).await.unwrap();
    let grandchild = token(&world, &child.token, 60).await.unwrap();
    let aside = token(&world, &tenant.token, 600).await.unwrap();
    assert!(child.expires <= parent.expires && lives(&world, &grandchild.token).await);
    let list: Page<TokenInfo> = world.get("/v1/tokens", &tenant.token).await.unwrap();
    let info = |list: &Page<TokenInfo>, id: TokenId| list.items.iter().find(|token| token.id == id).cloned().unwrap();
    assert_eq!((info(&list, child.id).parent, info(&list, parent.id).parent), (Some(parent.id), None));
    assert_eq!(info(&list, grandchild.id).note.unwrap().as_str(), "made");

    world.send::<Value>(Method::DELETE, &format!("/v1/tokens/{}", parent.id), Some(&tenant.token), None, &[]).await.unwrap();
    for gone in [&parent, &child, &grandchild] {
        assert!(!lives(&world, &gone.token).await);
    }
    assert!(lives(&world, &aside.token).await && lives(&world, &tenant.token).await);
    let list: Page<TokenInfo> = world.get("/v1/tokens", &tenant.token).await.unwrap();
    assert!([&parent, &child, &grandchild].iter().all(|token| info(&list, token.id).revoked.is_some()));
    assert_eq!(world.entries_of(tenant.id, "token_revoked").await.len(), 3);
    // One that was made in the moment of the revocation, and is not marked: what made it decides.
    let late = world.control().store.token(grandchild.id).await.unwrap().unwrap();
    assert!(!world.control().makers_live(&late, crate::clock::now()).await.unwrap());

    // The same for a program, and by giving the token back.
    let (_, robots) = world.robot(&tenant, "robot", "viewer", "internal").await;
    let child = token(&world, &robots, 60).await.unwrap();
    world.act::<Value>("/v1/logout", &robots).await.unwrap();
    assert!(!lives(&world, &child.token).await);

    // A chain has an end.
    let mut with = token(&world, &tenant.token, 3600).await.unwrap();
    for place in 1..=u64::try_from(TOKEN_CHAIN_MAX).unwrap() {
        with = token(&world, &with.token, 3600 - 60 * place).await.unwrap_or_else(|problem| panic!("{}", problem.detail));
    }
    assert_eq!(token(&world, &with.token, 60).await.unwrap_err().code, ErrorCode::WrongState);
    world.server.stop().await;
}

/// An administrator could not see the tokens of a service account, so what it had made stayed unseen.
#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_sees_the_tokens_of_the_tenant_and_of_no_other() {
    let world = World::start().await;
    let (tenant, other) = (world.tenant("acme").await, world.tenant("beta").await);
    let (robot, robots) = world.robot(&tenant, "robot", "viewer", "internal").await;
    let child = token(&world, &robots, 60).await.unwrap();
    let path = format!("/v1/tokens?principal={robot}");
    let list: Page<TokenInfo> = world.get(&path, &tenant.token).await.unwrap();
    assert_eq!(list.items.len(), 2);
    assert!(list.items.iter().all(|token| token.principal == Some(robot)));
    // What is seen can be revoked.
    let revoke = format!("/v1/principals/{robot}/tokens/{}", child.id);
    world.send::<Value>(Method::DELETE, &revoke, Some(&tenant.token), None, &[]).await.unwrap();
    assert!(!lives(&world, &child.token).await);

    let foreign = world.get::<Value>(&path, &other.token).await.unwrap_err();
    let absent = world.get::<Value>("/v1/tokens?principal=0190b5b4-0000-7000-8000-0000000000ff", &other.token).await.unwrap_err();
    assert_eq!((foreign.code, &foreign.detail), (ErrorCode::NotFound, &absent.detail));
    assert!(foreign.audit_index.is_some() && absent.audit_index.is_some());
    // Who administers nothing sees their own.
    let administrator = me(&world, &tenant).await.principal;
    let problem = world.get::<Value>(&format!("/v1/tokens?principal={administrator}"), &robots).await.unwrap_err();
    assert_eq!(problem.code, ErrorCode::Forbidden);
    let operator = world.get::<Value>(&path, &world.operator().await).await.unwrap_err();
    assert_eq!(operator.code, ErrorCode::NotFound);
    assert_eq!(world.get::<Page<TokenInfo>>(&format!("/v1/tokens?principal={robot}"), &robots).await.unwrap().items.len(), 2);
    world.server.stop().await;
}

/// A token whose birth is ahead of the clock proves that the clock went back: its end proves nothing then.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_from_the_future_is_none() {
    let world = World::start().await;
    let tenant = world.tenant("acme").await;
    let now = crate::clock::now();
    let principal = me(&world, &tenant).await.principal;
    for (ahead, good) in [(0, true), (60_000, false), (3_600_000, false)] {
        let token = identity::Token::draw(identity::TokenKind::Session, &mut keys::SystemRandom);
        let (created, expires) = (now.plus_millis(ahead), now.plus_millis(7_200_000));
        let row = crate::operation::login::token_row(world.control(), &token, tenant.id, Some(principal), "", created, expires, 1, Some(now)).unwrap();
        world.control().store.commit(store::Transaction::new().with(store::Mutation::PutToken(row)), now).await.unwrap();
        assert_eq!(lives(&world, &token.reveal()).await, good, "{ahead}");
    }
    world.server.stop().await;
}

/// Secrets are shown once, so a create that gives one cannot be repeated: the header is refused, not ignored.
#[tokio::test(flavor = "multi_thread")]
async fn a_repetition_that_would_do_it_twice_is_refused() {
    let world = World::start().await;
    let tenant = world.tenant("acme").await;
    let operator = world.operator().await;
    let (robot, _) = world.robot(&tenant, "robot", "viewer", "internal").await;
    let made = async || world.get::<Page<TokenInfo>>("/v1/tokens", &tenant.token).await.unwrap().items.len();
    let before = made().await;
    let account = format!("/v1/service-accounts/{robot}/tokens");
    let place = json!({"region": "eu-central", "jurisdiction": "EU", "labels": {}});
    for (path, token, body) in [
        ("/v1/tokens", &tenant.token, json!({"note": "x", "lifetime_s": 60})),
        (account.as_str(), &tenant.token, json!({"note": "x", "lifetime_s": 60})),
        ("/v1/users", &tenant.token, json!({"name": "dave", "roles": ["viewer"], "clearance": "internal"})),
        ("/v1/tenants", &operator, json!({"name": "gamma", "admin": "carol"})),
        ("/v1/join-tokens", &operator, json!({"name": "node-1", "place": place, "lifetime_s": 600})),
    ] {
        let problem = world.send::<Value>(Method::POST, path, Some(token.as_str()), Some(body), &[("idempotency-key", "k1")]).await.unwrap_err();
        assert_eq!(problem.code, ErrorCode::InvalidRequest, "{path}");
        assert!(problem.detail.contains("`Idempotency-Key`"), "{path}: {}", problem.detail);
    }
    let login = json!({"name": "x", "password": "y", "code": "000000"});
    let problem = world.send::<Value>(Method::POST, "/v1/login", None, Some(login), &[("idempotency-key", "k1")]).await.unwrap_err();
    assert_eq!(problem.code, ErrorCode::InvalidRequest);
    assert_eq!(made().await, before);
    // Where the answer holds no secret, it is honoured.
    let account = async || {
        let body = json!({"name": "once", "roles": ["viewer"], "clearance": "internal"});
        world.confirmed::<Principal>(tenant.id, &tenant.token, (Method::POST, "/v1/service-accounts"), Some(body), &[("idempotency-key", "k2")]).await
    };
    assert_eq!(account().await.unwrap().id, account().await.unwrap().id);
    world.server.stop().await;
}

/// Whoever tried ids of another tenant left no trace.
#[tokio::test(flavor = "multi_thread")]
async fn reaching_for_what_is_not_yours_is_an_entry() {
    let world = World::start().await;
    let (tenant, other) = (world.tenant("acme").await, world.tenant("beta").await);
    let volume = world.volume(&tenant, "data", "internal").await.to_string();
    let (robot, _) = world.robot(&tenant, "robot", "viewer", "internal").await;
    let owned = token(&world, &tenant.token, 600).await.unwrap().id.to_string();
    let (robot, absent) = (robot.to_string(), "0190b5b4-0000-7000-8000-0000000000ff");
    let lease = json!({"mode": "read", "purpose": "research", "recipient": "CQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="});
    let rights = json!({"roles": ["viewer"], "clearance": "internal"});
    let foreign = async |method: &str, path: String, kind: &str, id: &str, body: Option<Value>| {
        let answer = async |path: &str| {
            let problem = world
                .send::<Value>(method.parse().unwrap(), path, Some(&other.token), body.clone(), &[("if-match", "1")])
                .await
                .unwrap_err();
            assert_eq!(problem.code, ErrorCode::NotFound, "{path}: {}", problem.detail);
            assert!(problem.audit_index.is_some(), "{method} {path}: no entry");
            problem.detail
        };
        let same = answer(&path).await;
        assert_eq!(same, answer(&path.replace(id, absent)).await, "{path}");
        let log = refused(&world, other.id).await;
        for id in [id, absent] {
            assert!(log.contains(&(kind.to_owned(), id.to_owned())), "{method} {path}: {log:?}");
        }
    };
    foreign("GET", format!("/v1/volumes/{volume}"), "volume", &volume, None).await;
    foreign("DELETE", format!("/v1/volumes/{volume}"), "volume", &volume, None).await;
    foreign("POST", format!("/v1/volumes/{volume}/read-leases"), "volume", &volume, Some(lease)).await;
    foreign("GET", format!("/v1/jobs/{volume}"), "job", &volume, None).await;
    foreign("GET", format!("/v1/jobs/{volume}/receipt"), "job", &volume, None).await;
    foreign("POST", format!("/v1/keys/{volume}/destroy"), "key", &volume, Some(json!({}))).await;
    foreign("POST", format!("/v1/keys/{volume}/cancel-destruction"), "key", &volume, None).await;
    foreign("DELETE", format!("/v1/leases/{volume}"), "lease", &volume, None).await;
    foreign("PUT", format!("/v1/principals/{robot}"), "principal", &robot, Some(rights)).await;
    foreign("DELETE", format!("/v1/principals/{robot}"), "principal", &robot, None).await;
    foreign("DELETE", format!("/v1/tokens/{owned}"), "token", &owned, None).await;
    // Nothing of it stands in the log of whoever owns these things.
    let tried = [&volume, &owned];
    assert!(!refused(&world, tenant.id).await.iter().any(|(_, id)| tried.contains(&id)));

    // A lease that is none of the caller's, and a confirmation of somebody else.
    let own = world.volume(&other, "data", "internal").await;
    let object = format!("/v1/volumes/{own}/objects/cat/00000000000000000001");
    let problem = world.send::<Value>(Method::GET, &object, Some(&other.token), None, &[("swarm-lease", absent)]).await.unwrap_err();
    assert_eq!((problem.code, problem.audit_index.is_some()), (ErrorCode::ReleaseRefused, true));
    assert!(refused(&world, other.id).await.contains(&("lease".to_owned(), absent.to_owned())));
    let user = json!({"name": "dave", "roles": ["viewer"], "clearance": "internal"});
    let asked = world.post::<Value>("/v1/users", &tenant.token, &user).await.unwrap_err().step_up.unwrap().id.to_string();
    let second = token(&world, &tenant.token, 600).await.unwrap().token;
    let problem = world.send::<Value>(Method::POST, "/v1/users", Some(&second), Some(user), &[("swarm-step-up", &asked)]).await.unwrap_err();
    assert_eq!((problem.code, problem.audit_index.is_some()), (ErrorCode::StepUpRefused, true));
    assert_eq!(refused(&world, tenant.id).await.last().unwrap(), &("step_up".to_owned(), asked));

    // A loop does not bury the log: beyond the named rate it is counted.
    let before = world.entries(other.id).await.len();
    for _ in 0..3 * REACHES_PER_MINUTE + 20 {
        world.get::<Value>(&format!("/v1/volumes/{volume}"), &other.token).await.unwrap_err();
    }
    let singly = world.entries(other.id).await.len() - before;
    // The minute may turn once in between.
    assert!(singly <= 2 * usize::try_from(REACHES_PER_MINUTE).unwrap(), "{singly}");
    world.server.stop().await;
}

/// A user who was removed before they came in came in all the same, with the ticket.
#[tokio::test(flavor = "multi_thread")]
async fn a_recalled_invitation_is_void() {
    let world = World::start().await;
    let tenant = world.tenant("acme").await;
    let user = json!({"name": "dave", "roles": ["viewer"], "clearance": "internal"});
    let invited: vocabulary::api::Invitation = world.confirmed(tenant.id, &tenant.token, (Method::POST, "/v1/users"), Some(user), &[]).await.unwrap();
    let body = json!({"ticket": invited.ticket});
    let begin = async || world.send::<vocabulary::api::EnrolOffer>(Method::POST, "/v1/enrolments", None, Some(body.clone()), &[]).await;
    let offer = begin().await.unwrap();
    assert_eq!((offer.enrolled, offer.tenant.as_ref().map(vocabulary::Name::as_str)), (false, Some("acme")));
    let path = format!("/v1/principals/{}", invited.principal);
    world.confirmed::<Value>(tenant.id, &tenant.token, (Method::DELETE, path.as_str()), None, &[]).await.unwrap();
    assert_eq!(begin().await.unwrap_err().code, ErrorCode::TicketRefused);
    let log = world.entries_of(tenant.id, "token_revoked").await;
    assert_eq!(log.last().unwrap()["token_kind"], "ticket");
    world.server.stop().await;
}

/// Rows from before there were invitations read as members that came in.
#[test]
fn an_old_row_is_an_active_principal() {
    let old = r#"{"format":1,"id":"0190b5b4-0000-7000-8000-0000000000ff","kind":"user","name":"ann","person":null,"roles":["viewer"],
        "clearance":"internal","created":0}"#;
    let mut value: Value = serde_json::from_str(old).unwrap();
    value["created"] = serde_json::to_value(vocabulary::UnixTime::from_millis(0)).unwrap();
    let row: crate::row::PrincipalRow = serde_json::from_value(value.clone()).unwrap();
    assert!(row.invited.is_none());
    assert_eq!(serde_json::to_value(&row).unwrap(), value);
}
