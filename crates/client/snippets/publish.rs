use fanwire_client::{Api, Error, Publish};

/// Publishes one message, and says where it stands in the channel's history.
pub async fn publish(url: &str, key: &str) -> Result<(), Error> {
    let api = Api::new(url)?.key(key)?;
    let message = Publish::json("chat:lobby", "hello")?.tag("kind", "note").idempotency_key("order-17");
    match api.publish(message).await? {
        Some(position) => println!("kept as {} of {}", position.offset, position.epoch),
        None => println!("delivered, not kept"),
    }
    Ok(())
}
