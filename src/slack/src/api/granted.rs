//! The scopes that Slack has granted to the bot token.

use bytes::Bytes;
use http::{HeaderValue, Request, header};
use http_body_util::Full;
use secrecy::ExposeSecret as _;
use tokio::time::timeout;

use super::{ApiError, DEADLINE, SlackApi};

impl SlackApi {
    /// The scopes, from the header that every answer carries: `x-oauth-scopes`.
    pub async fn granted_scopes(&self) -> Result<Vec<String>, ApiError> {
        let not_sent = |text: &'static str| ApiError::NotSent { source: text.into() };
        let mut authorization = HeaderValue::try_from(format!("Bearer {}", self.bot_token.expose_secret()))
            .map_err(|_| not_sent("the token is not a valid header value"))?;
        authorization.set_sensitive(true);
        let request = Request::post(format!("{}/auth.test", self.base))
            .header(header::AUTHORIZATION, authorization)
            .body(Full::new(Bytes::new()))
            .map_err(|_| not_sent("the address is no URL"))?;
        let answer = timeout(DEADLINE, self.http.request(request))
            .await
            .map_err(|elapsed| ApiError::LostAnswer { source: elapsed.into() })?
            .map_err(|error| ApiError::NotSent { source: error.into() })?;
        let scopes = answer
            .headers()
            .get("x-oauth-scopes")
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        Ok(scopes
            .split(',')
            .map(|scope| scope.trim().to_owned())
            .filter(|scope| !scope.is_empty())
            .collect())
    }
}
