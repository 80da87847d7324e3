//! `swarm policy explain`.

use vocabulary::api::{PolicyExplain, PolicyExplained};

use crate::app::App;
use crate::args::PolicyVerb;
use crate::client::Call;
use crate::error::CliError;
use crate::output::{Format, line, visible};

pub(crate) async fn policy(app: &App, verb: PolicyVerb) -> Result<(), CliError> {
    let PolicyVerb::Explain { audit_index, principal, action, on } = verb;
    if audit_index.is_none() && action.is_none() {
        return Err(CliError::usage("name an audit index, or --action and --on").hint("swarm policy explain 42"));
    }
    let question = PolicyExplain { audit_index, principal, action, resource: on };
    let answer: PolicyExplained = app.client()?.send(&Call::post("/v1/policy/explain", &question)?, None).await?;
    if app.output.format != Format::Table {
        return app.output.one(&answer, &[]);
    }
    line(&format!("{} (policy epoch {})", answer.decision, answer.policy_epoch))?;
    for rule in &answer.rules {
        line(&format!("\nrule {}\n  {}", visible(&rule.id), rule.text.lines().map(visible).collect::<Vec<_>>().join("\n  ")))?;
    }
    for next in &answer.next {
        line(&format!("\nnext: {}", visible(next)))?;
    }
    Ok(())
}
