//! The keys under which personal values of the log are sealed: one root for each person, destroyed when the person is erased.

use audit::entry::Source;
use audit::sealed::{Personal, SubjectRoot};
use keys::{KeyState, Owner, Purpose};
use store::Mutation;
use vocabulary::{Name, PersonId, SYSTEM_OWNER, UnixTime};

use crate::api::listener::Connection;
use crate::api::problem::Failure;
use crate::state::{Control, address};
use crate::vault::versions;

/// What a login puts into its entry of the person.
pub(crate) struct SealedLogin {
    /// Makes the person's root, where there was none.
    pub(crate) root: Option<Mutation>,
    pub(crate) personal: Vec<Personal>,
    /// The address under the person's own key: nobody can test a guess once that is gone.
    pub(crate) source: Source,
}

/// The owner of a person's keys.
pub(crate) fn person_owner(person: PersonId) -> Owner {
    Owner { kind: "person".into(), id: *person.as_bytes() }
}

/// A person's root, or what became of it.
pub(crate) enum Subject {
    Known(SubjectRoot),
    /// It was destroyed: the person was erased.
    Destroyed,
    /// There never was one.
    None,
}

impl Control {
    /// The root of a person.
    pub(crate) async fn subject(&self, person: PersonId) -> Result<Subject, Failure> {
        let found = versions(&self.store, SYSTEM_OWNER, &person_owner(person), Purpose::AuditSubject).await.map_err(Failure::internal)?;
        let Some(first) = found.first() else { return Ok(Subject::None) };
        if first.record.state != KeyState::Active {
            return Ok(Subject::Destroyed);
        }
        let plain = self.vault.open_under_root(&first.record).map_err(Failure::internal)?;
        Ok(Subject::Known(SubjectRoot::from_bytes(*plain.expose())))
    }

    /// Every root of a person that was not destroyed: one, but for two first logins in the same moment.
    pub(crate) async fn subjects_of(&self, person: PersonId) -> Result<Vec<SubjectRoot>, Failure> {
        let found = versions(&self.store, SYSTEM_OWNER, &person_owner(person), Purpose::AuditSubject).await.map_err(Failure::internal)?;
        let open = found.iter().filter(|key| key.record.state == KeyState::Active);
        open.map(|key| Ok(SubjectRoot::from_bytes(*self.vault.open_under_root(&key.record).map_err(Failure::internal)?.expose()))).collect()
    }

    /// What a login seals into its entry: who by name, and from where. The person's root is made where there is none, in the
    /// transaction that the mutation goes into.
    pub(crate) async fn seal_login(
        &self,
        person: PersonId,
        name: &Name,
        connection: Option<&Connection>,
        now: UnixTime,
    ) -> Result<SealedLogin, Failure> {
        let (made, root) = match self.subject(person).await? {
            Subject::Known(root) => (None, root),
            // Erased in this moment: the login will find no principal.
            Subject::Destroyed => {
                return Ok(SealedLogin { root: None, personal: Vec::new(), source: Source::Peer(self.source(connection)) });
            }
            Subject::None => {
                let (record, plain) =
                    self.vault.make_under_root(SYSTEM_OWNER, Purpose::AuditSubject, person_owner(person), now)?;
                (Some(Mutation::PutKey(record)), SubjectRoot::from_bytes(*plain.expose()))
            }
        };
        let personal = |path: &str, value: String| Personal { path: path.to_owned(), value, subject: person.to_string(), root: root.clone() };
        let mut values = vec![personal("user.name", name.to_string())];
        values.extend(connection.map(|connection| personal("src_endpoint.ip", connection.remote.ip().to_string())));
        let source = Source::Peer(root.pseudonym(&address(connection)).map_err(Failure::internal)?);
        Ok(SealedLogin { root: made, personal: values, source })
    }
}
