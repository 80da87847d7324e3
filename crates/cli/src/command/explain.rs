//! `swarm explain CODE`.

use serde::Serialize;
use vocabulary::ErrorCode;

use crate::app::App;
use crate::error::CliError;

#[derive(Debug, Serialize)]
struct Explained {
    code: &'static str,
    http_status: u16,
    exit_code: u8,
    hint: &'static str,
}

pub(crate) fn explain(app: &App, code: Option<&str>) -> Result<(), CliError> {
    let of = |code: &ErrorCode| Explained {
        code: code.as_str(),
        http_status: code.status(),
        exit_code: code.exit_code(),
        hint: code.hint(),
    };
    let Some(code) = code else {
        let all: Vec<Explained> = ErrorCode::ALL.iter().map(of).collect();
        return app.output.list(&all, &["code", "exit", "http", "what to do"], |row| {
            vec![row.code.to_owned(), row.exit_code.to_string(), row.http_status.to_string(), row.hint.to_owned()]
        });
    };
    let Some(found) = ErrorCode::ALL.iter().find(|known| known.as_str() == code) else {
        return Err(CliError::new(3, format!("there is no error code `{}`", crate::output::visible(code))).hint("swarm explain lists them"));
    };
    let row = of(found);
    app.output.one(
        &row,
        &[
            ("code", row.code.to_owned()),
            ("http status", row.http_status.to_string()),
            ("exit code", row.exit_code.to_string()),
            ("what to do", row.hint.to_owned()),
        ],
    )
}
