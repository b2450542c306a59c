//! The methods for forms.

use serde_json::{Value, json};

use super::{ApiError, CallArguments, SlackApi, Token};

impl SlackApi {
    /// `views.open`: a form for whoever made the trigger, which is good for 3 s and for one form.
    pub async fn open_view(&self, trigger_id: &str, view: &Value) -> Result<(), ApiError> {
        let body = json!({ "trigger_id": trigger_id, "view": view });
        self.call("views.open", Token::Bot, CallArguments::Json(&body))
            .await
            .map(|_| ())
    }

    /// `views.update`: refused by Slack where the form is no longer the one with this hash.
    pub async fn update_view(&self, id: &str, hash: &str, view: &Value) -> Result<(), ApiError> {
        let body = json!({ "view_id": id, "hash": hash, "view": view });
        self.call("views.update", Token::Bot, CallArguments::Json(&body))
            .await
            .map(|_| ())
    }
}
