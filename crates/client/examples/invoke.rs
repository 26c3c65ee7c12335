//! Stores an action from a file and runs it, once waiting for the record and once only starting it.
//!
//! ```text
//! cargo run --example invoke -- 127.0.0.1:7401 guest/hello python:3 hello.py '{"name": "Ada"}'
//! ```

use std::error::Error;
use std::time::Duration;

use whiskraft_client::{
    ActionName, ActionSpec, Client, Expect, InvokeError, InvokeOptions, NamespaceName, Progress,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [endpoint, action, kind, file, payload] = arguments.as_slice() else {
        return Err("usage: invoke ENDPOINT ACTION KIND FILE JSON".into());
    };
    let action: ActionName = action.parse()?;
    // Limits belong to the namespace of whoever asks; here it is the action's own.
    let namespace: NamespaceName = action.namespace().parse()?;

    // One scheduler is enough: the client learns of the others from it.
    let client = Client::connect([endpoint]).await?;
    println!(
        "cluster {:?}, schedulers {:?}",
        client.cluster_id(),
        client.members()
    );

    // The code is uploaded only if the cluster does not have it yet.
    let code = tokio::fs::read(file).await?;
    let revision = client
        .put_action(&ActionSpec::new(action.clone(), kind, code), Expect::Anything)
        .await?;
    println!("{action} is at revision {revision}");

    // Blocking: the record, or a typed error that says what became of the activation.
    let options = InvokeOptions {
        deadline: Duration::from_secs(30),
        ..InvokeOptions::default()
    };
    match client
        .invoke(&namespace, &action, payload.as_str(), options.clone())
        .await
    {
        Ok(record) => {
            println!(
                "{}: {} {}",
                record.id,
                record.status.text(),
                String::from_utf8_lossy(&record.result)
            );
        }
        // Not an end: the activation goes on, and its record can be looked up.
        Err(InvokeError::Deadline { id, .. }) => match client.find_activation(&namespace, id).await? {
            Some(found) if matches!(found.progress, Progress::Done(_)) => println!("{id}: ended just now"),
            found => println!("{id}: still under way: {found:?}"),
        },
        Err(error) => return Err(error.into()),
    }

    // Non-blocking: returns as soon as it is on the disks of a majority of the schedulers. Dropping the handle would
    // cancel nothing; `client.result` asks for the record of any id, from anywhere, until it expires.
    let mut invocation = client
        .submit(&namespace, &action, payload.as_str(), options)
        .await?;
    println!("{}: accepted", invocation.id());
    let record = invocation.result().await?;
    println!(
        "{}: {} after {} attempt(s)",
        record.id,
        record.status.text(),
        invocation.attempts()
    );

    client.close().await;
    Ok(())
}
