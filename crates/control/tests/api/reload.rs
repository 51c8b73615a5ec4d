//! What is answered when the configuration is read again.

use fanwire_control::{Changes, Reload};
use tokio::sync::mpsc;

use super::*;

fn api(harness: &Harness) -> (Api, mpsc::Receiver<Reload>) {
    let (reader, wishes) = mpsc::channel(1);
    (Api::new(Arc::clone(&harness.node), &keys(), Audit::All).with_reader(reader), wishes)
}

#[test]
fn what_changes_is_told() {
    run(async |harness, _| {
        let (api, mut wishes) = api(harness);
        for (params, wanted) in
            [(json!({}), false), (json!({"dry_run": true}), true), (json!({"dry_run": null}), false)]
        {
            let reader = async {
                let Reload { dry_run, answer } = wishes.recv().await.unwrap();
                assert_eq!(dry_run, wanted);
                let changes =
                    Changes { changed: vec!["client.origins".into()], needs_restart: vec!["node.name".into()] };
                answer.send(Ok(changes)).unwrap();
            };
            let (told, ()) = tokio::join!(result(&api, "reload", params), reader);
            assert_eq!(told, json!({"changed": ["client.origins"], "needs_restart": ["node.name"]}));
        }
    });
}

#[test]
fn all_mistakes_are_told() {
    run(async |harness, _| {
        let (api, mut wishes) = api(harness);
        let reader = async {
            let answer = wishes.recv().await.unwrap().answer;
            answer.send(Err(vec!["this is wrong".into(), "so is that".into()])).unwrap();
        };
        let word = "bad request: nothing was changed: this is wrong; so is that";
        let (code, ()) = tokio::join!(error(&api, "reload", json!({}), word), reader);
        assert_eq!(code, 107);
    });
}

#[test]
fn nobody_who_reads_too_many_who_ask_and_the_end() {
    run(async |harness, without| {
        assert_eq!(error(without, "reload", json!({}), "no configuration").await, 108);
        let (api, mut wishes) = api(harness);
        let late = async {
            assert_eq!(error(&api, "reload", json!({}), "too many").await, 111);
            drop(wishes.recv().await);
        };
        let (code, ()) = tokio::join!(error(&api, "reload", json!({}), "nothing was applied"), late);
        assert_eq!(code, 503);
    });
}
