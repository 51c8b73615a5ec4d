use fanwire_client::{Error, Publish, Publisher, PublisherConfig};

/// Publishes many messages over one call, and waits for all of them in the end.
pub async fn stream(url: &str, key: &str, messages: &[&str]) -> Result<(), Error> {
    let publisher = Publisher::new(&PublisherConfig::new(url).key(key)?)?;
    let mut sent = Vec::new();
    for message in messages {
        sent.push(publisher.send(Publish::json("chat:lobby", message)?).await?);
    }
    for acknowledgement in sent {
        if let Some(position) = acknowledgement.await? {
            println!("kept as {}", position.offset);
        }
    }
    Ok(())
}
