//! The account whose tokens witness a run: without roles, without a mounted token, in the run's home, and gone with it.

use super::{Sandbox, SandboxError, namespaced};
use crate::names::{WITNESS_ACCOUNT, home_namespace};
use crate::witness::ServiceAccount;
use serde_json::json;

impl Sandbox {
    /// Makes the account, or finds the one of an earlier part of the run.
    ///
    /// # Errors
    /// The server refuses, or the name is taken by something that is not ours.
    pub async fn open_witness(&self) -> Result<ServiceAccount, SandboxError> {
        let home = home_namespace(&self.journal.head().run);
        let object = namespaced("", "serviceaccounts", &home, WITNESS_ACCOUNT);
        let body = json!({
            "apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": WITNESS_ACCOUNT},
            "automountServiceAccountToken": false,
        });
        self.create_inside(&object, None, body).await?;
        let present = self
            .cluster
            .get_json(&object.path())
            .await
            .map_err(|source| SandboxError::Api {
                what: format!("reading {object}"),
                source,
            })?;
        match present["metadata"]["uid"].as_str() {
            Some(uid) => Ok(ServiceAccount {
                namespace: home,
                name: WITNESS_ACCOUNT.to_owned(),
                uid: uid.to_owned(),
            }),
            None => Err(SandboxError::Account {
                account: format!("{home}/{WITNESS_ACCOUNT}"),
                cause: "the server gives it no uid".to_owned(),
            }),
        }
    }
}
