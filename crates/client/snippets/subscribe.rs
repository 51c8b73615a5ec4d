use fanwire_client::{Client, Config, Error, Event, Recovery, Subscribe};

/// Prints what is published in a channel, until the subscription ends.
pub async fn subscribe(url: &str, token: &str) -> Result<(), Error> {
    let client = Client::connect(Config::new(url).token(token)).await?;
    let mut lobby = client.subscribe(Subscribe::new("chat:lobby")).await?;
    while let Some(event) = lobby.next().await {
        match event {
            Event::Publication(publication) => println!("{:?}", publication.data),
            Event::Subscribed(now) if now.recovery == Recovery::Lost => println!("something is missing here"),
            Event::Ended(error) => println!("over: {error}"),
            _ => {}
        }
    }
    Ok(())
}
