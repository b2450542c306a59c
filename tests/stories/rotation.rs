//! Secrets are exchanged while the installation is in use.

use std::fs;

use serde_json::json;

use crate::product::Product;

#[tokio::test(flavor = "multi_thread")]
async fn the_stores_key_is_exchanged_without_a_restart_and_the_bots_secret_with_one() {
    let mut product = Product::start().await;
    product.runs("process ledger").await.downloads().await;

    let file = |name: &str| product.installation.file(name);
    let fresh = "a-new-secret-of-forty-characters-or-so-x";
    let write = |accounts: serde_json::Value| fs::write(file("store-keys"), accounts.to_string()).unwrap();
    let former = fs::read_to_string(file("secret-key")).unwrap();
    write(json!([{ "accessKey": "sandbox", "secretKey": former }, { "accessKey": "second", "secretKey": fresh }]));
    fs::write(file("access-key"), "second").unwrap();
    fs::write(file("secret-key"), fresh).unwrap();
    write(json!([{ "accessKey": "second", "secretKey": fresh }]));
    product.runs("process ledger").await.downloads().await;

    fs::write(file("secret"), "another Secret of the bot, long enough for an HMAC").unwrap();
    product.installation.restart_bot(0).await.unwrap();
    product.runs("process ledger").await.downloads().await;
    product.stop().await;
}
