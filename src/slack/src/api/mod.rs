//! Slack's Web API, as much of it as we call. Owns deadlines and the classes of failure; never retries and never logs a
//! token, a payload or a `response_url`.
//!
//! # Design notes
//! A small client over hyper instead of slack-morphism's: the Web API needs the same CONNECT proxy and the same deadlines as
//! the socket, and its callers must tell "never sent" from "answer lost", which decides whether a post may be repeated.

mod error;
mod granted;
mod methods;
mod read;
mod views;

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use diagbot_base::telemetry::metrics::{Metrics, Outcome};
use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioTimer},
};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;
use tokio::{sync::OnceCell, time::timeout};
use url::Url;

pub use self::{
    error::{ApiError, Rejection},
    methods::{Identity, Metadata, Posted},
    read::SeenMessage,
};
use crate::{
    config::{SlackConfig, SlackTokens},
    dial::{DialError, Dialer},
};

/// Longest wait for an answer of the Web API.
const DEADLINE: Duration = Duration::from_secs(10);
/// Longest answer that is read; a page of 100 messages stays far below.
const ANSWER_BYTES: usize = 4 << 20;
/// Wait after a 429 that names none.
const DEFAULT_RETRY_AFTER: Duration = Duration::from_secs(5);

/// The client. Cheap to clone.
#[derive(Clone)]
pub struct SlackApi {
    http: Client<Dialer, Full<Bytes>>,
    dialer: Dialer,
    base: Arc<str>,
    bot_token: SecretString,
    app_token: SecretString,
    metrics: Metrics,
    /// Who we are, once it was asked for.
    identity: Arc<OnceCell<Identity>>,
}

impl fmt::Debug for SlackApi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SlackApi")
            .field("base", &self.base)
            .finish_non_exhaustive()
    }
}

/// Whose token a call carries.
#[derive(Debug, Clone, Copy)]
enum Token {
    Bot,
    App,
}

/// Arguments of a call.
enum CallArguments<'a> {
    /// Methods that write.
    Json(&'a Value),
    /// Methods that read; several of them take nothing else.
    Form(&'a [(&'a str, &'a str)]),
}

impl SlackApi {
    /// A client; makes no call.
    pub fn new(config: &SlackConfig, tokens: &SlackTokens, metrics: Metrics) -> Result<Self, DialError> {
        let dialer = Dialer::new(config.proxy.as_ref())?;
        let http = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(Duration::from_secs(30))
            .pool_timer(TokioTimer::new())
            .build(dialer.clone());
        if config.api_url.scheme() == "http" {
            tracing::warn!("slack.apiUrl is plain http: tokens travel unencrypted");
        }
        Ok(Self {
            http,
            dialer,
            base: config.api_url.as_str().trim_end_matches('/').into(),
            bot_token: tokens.bot.clone(),
            app_token: tokens.app.clone(),
            metrics,
            identity: Arc::default(),
        })
    }

    /// The dialer, for the socket.
    pub fn dialer(&self) -> &Dialer {
        &self.dialer
    }

    /// One call of a method of the Web API: its answer where `ok` is true.
    async fn call(&self, method: &'static str, token: Token, arguments: CallArguments<'_>) -> Result<Value, ApiError> {
        let token = match token {
            Token::Bot => &self.bot_token,
            Token::App => &self.app_token,
        };
        let (kind, body) = match arguments {
            CallArguments::Json(value) => ("application/json; charset=utf-8", value.to_string()),
            CallArguments::Form(pairs) => {
                let form = url::form_urlencoded::Serializer::new(String::new())
                    .extend_pairs(pairs)
                    .finish();
                ("application/x-www-form-urlencoded", form)
            }
        };
        let mut authorization =
            HeaderValue::try_from(format!("Bearer {}", token.expose_secret())).map_err(|_| ApiError::NotSent {
                source: "the token is not a valid header value".into(),
            })?;
        authorization.set_sensitive(true);
        let outcome = self
            .exchange(&format!("{}/{method}", self.base), kind, body, Some(authorization))
            .await
            .and_then(|(status, after, bytes)| error::answer(status, after, &bytes));
        let word = match &outcome {
            Ok(_) => "ok",
            Err(error) => error.word(),
        };
        self.metrics.slack_calls.get_or_create(&Outcome { outcome: word }).inc();
        outcome
    }

    /// Posts to a `response_url`; it carries no token.
    pub async fn respond(&self, response_url: &SecretString, body: &Value) -> Result<(), ApiError> {
        let url = response_url.expose_secret();
        Url::parse(url).map_err(|_| ApiError::NotSent {
            source: "the response_url is no URL".into(),
        })?;
        let kind = "application/json; charset=utf-8";
        let (status, after, bytes) = self.exchange(url, kind, body.to_string(), None).await?;
        // Answers are `ok` as text, or JSON.
        if status.is_success() && !bytes.starts_with(b"{") {
            return Ok(());
        }
        error::answer(status, after, &bytes).map(|_| ())
    }

    async fn exchange(
        &self,
        url: &str,
        content_type: &'static str,
        body: String,
        authorization: Option<HeaderValue>,
    ) -> Result<(StatusCode, Duration, Bytes), ApiError> {
        let mut request = Request::post(url)
            .header(header::CONTENT_TYPE, content_type)
            .header(header::USER_AGENT, concat!("diagbot/", env!("CARGO_PKG_VERSION")))
            .body(Full::new(Bytes::from(body)))
            .map_err(|_| ApiError::NotSent {
                source: "the address is no URL".into(),
            })?;
        if let Some(value) = authorization {
            request.headers_mut().insert(header::AUTHORIZATION, value);
        }
        let exchange = async {
            let response = self.http.request(request).await.map_err(|error| {
                if error.is_connect() {
                    ApiError::NotSent { source: error.into() }
                } else {
                    ApiError::LostAnswer { source: error.into() }
                }
            })?;
            let status = response.status();
            let after = response
                .headers()
                .get(header::RETRY_AFTER)
                .and_then(|value| value.to_str().ok()?.parse().ok())
                .map_or(DEFAULT_RETRY_AFTER, Duration::from_secs);
            let bytes = Limited::new(response.into_body(), ANSWER_BYTES)
                .collect()
                .await
                .map_err(|source| ApiError::LostAnswer { source })?
                .to_bytes();
            Ok((status, after, bytes))
        };
        timeout(DEADLINE, exchange)
            .await
            .map_err(|elapsed| ApiError::LostAnswer { source: elapsed.into() })?
    }
}
