//! `swarm login`, `swarm logout`: first contact, enrolment, and the token.

use vocabulary::api::{Done, EnrolBegin, EnrolComplete, EnrolOffer, Enrolled, IssuedToken, LoginAs, LoginRequest, WhoAmI};
use vocabulary::{Name, UnixTime};
use zeroize::Zeroizing;

use crate::app::App;
use crate::args::Login;
use crate::client::{Call, Client};
use crate::context::Context;
use crate::error::CliError;
use crate::prompt;

pub(crate) async fn login(app: &App, login: Login) -> Result<(), CliError> {
    let remembered = app.context().ok();
    let (url, deployment_file) = match (&login.url, &login.ca_pin, remembered) {
        (Some(url), Some(pin), _) => (url.clone(), crate::trust::first_contact(url, pin).await?),
        (url, None, Some(known)) if url.is_none() || url.as_deref() == Some(known.url.as_str()) => (known.url, known.deployment_file),
        (Some(_), None, _) => {
            return Err(CliError::usage("the first login to a server needs --ca-pin")
                .hint("the server printed it at its first start; its operator shows it again with swarm status"));
        }
        (None, _, _) => return Err(CliError::usage("which server? name its address").hint("swarm login https://127.0.0.1:7443 --ca-pin sha256:…")),
    };
    let client = crate::trust::client(&url, &deployment_file, None)?;
    if login.token_stdin {
        return by_token(app, url, deployment_file).await;
    }
    if login.enrol {
        enrol(app, &client).await?;
    }
    let name = match login.name {
        Some(name) => name,
        None => prompt::line("Name: ", app.no_input)?
            .parse::<Name>()
            .map_err(|error| CliError::usage(format!("the name: {error}")))?,
    };
    let login_as = match login.login_as.as_deref() {
        None => None,
        Some("operator") => Some(LoginAs::Operator),
        Some(tenant) => Some(LoginAs::Tenant(tenant.parse().map_err(|error| CliError::usage(format!("--as: {error}")))?)),
    };
    let password = prompt::secret("Password: ", app.no_input)?;
    let code = prompt::line("Code of your authenticator (or a recovery code): ", app.no_input)?;
    let body = LoginRequest { name, password: password.to_string(), code, login_as };
    let issued: IssuedToken = client.send(&Call::post("/v1/login", &body)?, None).await?;
    finish(app, url, deployment_file, issued.token.clone(), Some(issued.expires)).await
}

async fn by_token(app: &App, url: String, deployment_file: String) -> Result<(), CliError> {
    let token = Zeroizing::new(prompt::next_line()?);
    finish(app, url, deployment_file, token.to_string(), None).await
}

async fn finish(app: &App, url: String, deployment_file: String, token: String, expires: Option<UnixTime>) -> Result<(), CliError> {
    let client = crate::trust::client(&url, &deployment_file, Some(token.clone()))?;
    let who: WhoAmI = client.send(&Call::get("/v1/whoami"), None).await?;
    let context = Context { url, deployment_file, token: Some(token), expires: expires.or(Some(who.expires)) };
    app.contexts.save(&app.context_name, &context)?;
    let tenant = who.tenant_name.as_ref().map_or_else(|| "the platform".to_owned(), |name| format!("tenant {name}"));
    app.output.one(
        &who,
        &[("logged in", format!("{} of {tenant}", who.name)), ("roles", who.roles.join(", ")), ("until", who.expires.to_string())],
    )
}

/// Redeems the one-time ticket: sets up password and authenticator for somebody who has none, or has them proved.
async fn enrol(app: &App, client: &Client) -> Result<(), CliError> {
    let ticket = prompt::secret("One-time ticket: ", app.no_input)?;
    let offer: EnrolOffer = client.send(&Call::post("/v1/enrolments", &EnrolBegin { ticket: ticket.to_string() })?, None).await?;
    if let Some(tenant) = &offer.tenant {
        app.output.show_once(format!("This ticket makes {} a member of the tenant {tenant}, with the roles: {}.", offer.name, offer.roles.join(", ")));
    }
    let (Some(secret), Some(uri), false) = (&offer.totp_secret, &offer.totp_uri, offer.enrolled) else {
        return accept(app, client, &ticket, &offer).await;
    };
    app.output.show_once(format!("Enrolling {}. Scan this with your authenticator:\n", offer.name));
    app.output.show_once(qr(uri));
    app.output.show_once(format!("or type the secret: {secret}\n"));
    let password = loop {
        let first = prompt::secret("New password (at least 12 characters): ", app.no_input)?;
        let second = prompt::secret("The same again: ", app.no_input)?;
        if *first == *second {
            break first;
        }
        app.output.say("the two differ: try again");
    };
    let code = prompt::line("Code that your authenticator shows: ", app.no_input)?;
    let body = EnrolComplete { ticket: ticket.to_string(), password: password.to_string(), code };
    let enrolled: Enrolled = client.send(&Call::post("/v1/enrolments/complete", &body)?, None).await?;
    app.output.show_once("\nKeep these recovery codes: each replaces the authenticator once.");
    for code in &enrolled.recovery_codes {
        app.output.show_once(format!("  {code}"));
    }
    app.output.say("\nNow log in, with the authenticator's next code.");
    Ok(())
}

/// Redeems the ticket of somebody who has factors in the deployment: they prove them, and get no new ones.
async fn accept(app: &App, client: &Client, ticket: &str, offer: &EnrolOffer) -> Result<(), CliError> {
    app.output.show_once(format!(
        "{} has a password and an authenticator in this deployment already. If that is you, prove them: nothing about them changes.\n\
         If it is not you, stop here and ask for an invitation under another name.",
        offer.name
    ));
    let password = prompt::secret("Password: ", app.no_input)?;
    let code = prompt::line("Code of your authenticator (or a recovery code): ", app.no_input)?;
    let body = EnrolComplete { ticket: ticket.to_owned(), password: password.to_string(), code };
    let _: Enrolled = client.send(&Call::post("/v1/enrolments/complete", &body)?, None).await?;
    app.output.say("\nThe ticket is spent, and you are a member. Now log in, with the authenticator's next code.");
    Ok(())
}

/// A QR code of half blocks: two modules a character.
fn qr(text: &str) -> String {
    let Ok(code) = qrcode::QrCode::new(text.as_bytes()) else { return String::new() };
    let width = code.width();
    let colors = code.into_colors();
    let dark = |x: usize, y: usize| -> bool {
        match (x.checked_sub(2), y.checked_sub(2)) {
            (Some(x), Some(y)) if x < width && y < width => {
                colors.get(y.saturating_mul(width).saturating_add(x)).is_some_and(|color| *color == qrcode::Color::Dark)
            }
            _ => false,
        }
    };
    let side = width.saturating_add(4);
    let mut drawn = String::new();
    for y in (0..side).step_by(2) {
        for x in 0..side {
            // Light modules are drawn, so that the code reads on dark terminals.
            drawn.push(match (dark(x, y), dark(x, y.saturating_add(1))) {
                (false, false) => '█',
                (false, true) => '▀',
                (true, false) => '▄',
                (true, true) => ' ',
            });
        }
        drawn.push('\n');
    }
    drawn
}

pub(crate) async fn logout(app: &App) -> Result<(), CliError> {
    let mut context = app.context()?;
    let client = app.client()?;
    let revoked: Result<Done, CliError> = client.send(&Call::new(reqwest::Method::POST, "/v1/logout"), None).await;
    context.token = None;
    context.expires = None;
    app.contexts.save(&app.context_name, &context)?;
    match revoked {
        Ok(done) => app.output.one(&done, &[("logged out", format!("audit index {}", done.audit_index))]),
        Err(error) if error.exit == 4 => {
            app.output.say("the token was not valid any more");
            Ok(())
        }
        Err(error) => Err(error.hint("the token is forgotten here, but the server did not hear of it: it lapses by itself")),
    }
}
