//! Partitions between hosts, and between hosts and clients.

use partita_identity::ticket::TicketKey;
use partita_protocol::host::host_message::Message as FromHost;
use partita_protocol::host::scheduler_message::Message as ToHost;
use partita_protocol::host::{PartitionList, SendOutputs, StoreUpload};
use partita_types::{Cause, InputGroup, StoredPartition};

use crate::scheduler::{Cluster, Session, array, attempt, frame, info, partition, reading, source, ticket_key};

/// Has a host make a small and a large partition.
async fn produce(session: &mut Session) -> Vec<StoredPartition> {
    session.assign(array(0, "echo", Vec::new()), frame(1, 0, 0..1)).await;
    session.assign(array(1, "big", Vec::new()), frame(2, 1, 1..2)).await;
    let ends = session.ends().await;
    assert!(ends.failed.is_empty(), "{:?}", ends.failed);
    vec![partition(0, 0, ends.succeeded[&0][0]), partition(1, 1, ends.succeeded[&1][0])]
}

#[tokio::test]
async fn a_host_reads_partitions_of_another_with_a_ticket() {
    let mut cluster = Cluster::start().await;
    let (first, mut of_first) = cluster.host("h1").await;
    let (second, mut of_second) = cluster.host("h2").await;
    let partitions = produce(&mut of_first).await;
    let from = source(&of_first, &ticket_key("h1"), "h2", &partitions);
    let copying = array(2, "copy", vec![InputGroup::Partitions]);
    of_second.assign(copying.clone(), reading(frame(3, 2, 0..2), &partitions, from.clone())).await;
    let ends = of_second.ends().await;
    assert!(ends.failed.is_empty(), "{:?}", ends.failed);
    let copied: Vec<_> = ends.succeeded.values().flatten().copied().collect();
    assert_eq!(copied, [partitions[0].info, partitions[1].info]);
    assert_eq!(ends.moved, 2);
    assert_eq!((first.counters().served_partitions, second.counters().fetched_partitions), (2, 2));
    // What was fetched a moment ago is not fetched again.
    of_second.assign(copying, reading(frame(4, 2, 10..12), &partitions, from)).await;
    assert_eq!(of_second.ends().await.moved, 0);
    first.stop().await;
    second.stop().await;
}

/// How a task ends whose input was to be fetched with this key and for this destination.
async fn fetch_with(key: &TicketKey, destination: &str) {
    let mut cluster = Cluster::start().await;
    let (first, mut of_first) = cluster.host("h1").await;
    let (second, mut of_second) = cluster.host("h2").await;
    let partitions = produce(&mut of_first).await;
    let from = source(&of_first, key, destination, &partitions);
    let copying = array(2, "copy", vec![InputGroup::Partitions]);
    of_second.assign(copying, reading(frame(3, 2, 0..1), &partitions[..1], from)).await;
    let failed = of_second.ends().await.failed.remove(&0).expect("the task must fail");
    assert_eq!((failed.failure.cause, failed.missing_inputs), (Cause::Input, vec![partitions[0].id]));
    assert!(failed.failure.message.contains("the ticket does not allow this"), "{}", failed.failure.message);
    assert_eq!(first.counters().served_partitions, 0);
    assert!(first.counters().fetches_refused > 0);
    first.stop().await;
    second.stop().await;
}

#[tokio::test]
async fn a_forged_ticket_is_refused() {
    fetch_with(&TicketKey([0; 32]), "h2").await;
}

#[tokio::test]
async fn a_ticket_of_another_host_is_refused() {
    fetch_with(&ticket_key("h1"), "h3").await;
}

/// A restarted scheduler has new keys, and may give work to one host before another has heard from it.
#[tokio::test]
async fn a_ticket_made_with_the_key_of_the_next_welcome_waits_for_it() {
    let mut cluster = Cluster::start().await;
    let (first, mut of_first) = cluster.host("h1").await;
    let (second, mut of_second) = cluster.host("h2").await;
    let partitions = produce(&mut of_first).await;
    let from = source(&of_first, &TicketKey([9; 32]), "h2", &partitions);
    let copying = array(2, "copy", vec![InputGroup::Partitions]);
    of_second.assign(copying, reading(frame(3, 2, 0..2), &partitions, from)).await;
    drop(of_first);
    cluster.next_ticket_key = Some(TicketKey([9; 32]));
    let _of_first = cluster.welcome().await;
    let ends = of_second.ends().await;
    assert!(ends.failed.is_empty(), "{:?}", ends.failed);
    assert_eq!((ends.moved, first.counters().fetches_refused), (2, 0));
    first.stop().await;
    second.stop().await;
}

#[tokio::test]
async fn an_input_that_nobody_has_is_reported_missing() {
    let mut cluster = Cluster::start().await;
    let (first, mut of_first) = cluster.host("h1").await;
    let (second, of_second) = cluster.host("h2").await;
    let gone = [partition(0, 0, info(b"gone"))];
    let from = source(&of_second, &ticket_key("h2"), "h1", &gone);
    of_first.assign(array(2, "copy", vec![InputGroup::Partitions]), reading(frame(1, 2, 0..1), &gone, from)).await;
    let failed = of_first.ends().await.failed.remove(&0).expect("the task must fail");
    assert_eq!((failed.failure.cause, failed.missing_inputs), (Cause::Input, vec![gone[0].id]));
    first.stop().await;
    second.stop().await;
}

#[tokio::test]
async fn outputs_are_sent_in_the_order_asked_for_and_missing_ones_are_told() {
    let mut cluster = Cluster::start().await;
    let (running, mut session) = cluster.host("h1").await;
    let partitions = produce(&mut session).await;
    let ids = [partitions[1].id, partition(9, 9, info(b"")).id, partitions[0].id];
    let order = SendOutputs { relay: 4, partitions: Some(PartitionList::from_ids(ids)) };
    session.say(ToHost::SendOutputs(order)).await;
    let result = cluster.result().await;
    assert_eq!(result[&0].as_ref().map(|bytes| info(bytes)), Some(partitions[1].info));
    assert_eq!(result[&1], None);
    assert_eq!(result[&2].as_deref(), Some(&b"common"[..]));
    running.stop().await;
}

#[tokio::test]
async fn an_upload_is_kept_and_dropped_like_any_partition() {
    let mut cluster = Cluster::start().await;
    let (running, mut session) = cluster.host("h1").await;
    cluster.add_upload(3, &[b"two ", b"parts"]);
    let uploaded = partition(5, 0, info(b"two parts"));
    let order = StoreUpload { relay: 3, partition: Some(PartitionList::from_stored(&[uploaded])) };
    session.say(ToHost::StoreUpload(order)).await;
    let FromHost::UploadStored(answer) = session.hear().await else { panic!("no answer") };
    assert_eq!((answer.relay, answer.refusal.as_str()), (3, ""));
    assert_eq!(answer.partition.unwrap().stored().unwrap(), [uploaded]);
    assert_eq!(uploaded.id.attempt, attempt(5, 0));
    session.say(ToHost::Drop(PartitionList::from_ids([uploaded.id]))).await;
    let order = SendOutputs { relay: 4, partitions: Some(PartitionList::from_ids([uploaded.id])) };
    // Orders run beside each other, so it may be sent before it is dropped, but not for long.
    loop {
        session.say(ToHost::SendOutputs(order.clone())).await;
        if cluster.result().await[&0].is_none() {
            break;
        }
    }
    running.stop().await;
}

#[tokio::test]
async fn an_upload_of_another_size_than_announced_is_refused() {
    let mut cluster = Cluster::start().await;
    let (running, mut session) = cluster.host("h1").await;
    for (relay, size) in [(1, 3_u64), (2, 8), (3, 1 << 40)] {
        cluster.add_upload(relay, &[b"12345"]);
        let mut list = PartitionList::from_ids([partition(5, 0, info(b"")).id]);
        list.sizes = vec![size];
        session.say(ToHost::StoreUpload(StoreUpload { relay, partition: Some(list) })).await;
        let FromHost::UploadStored(answer) = session.hear().await else { panic!("no answer") };
        assert_eq!(answer.relay, relay);
        assert!(!answer.refusal.is_empty(), "{size} bytes were announced and 5 taken");
    }
    running.stop().await;
}
