//! What an initial member makes of what it hears from the others.

use super::*;

const fn incarnation(id: u64) -> Incarnation {
    [id as u8; 16]
}

fn cluster() -> BTreeMap<u64, String> {
    (1..=3).map(|id| (id, format!("host-{id}:7400"))).collect()
}

fn identity(id: u64) -> Identity {
    let mut identity = Identity::new("test", "c".to_owned(), id, 3).unwrap();
    identity.incarnation = incarnation(id);
    identity
}

/// One that waits like the asker.
fn waiting(id: u64) -> Answer {
    Answer {
        cluster_id: "c".to_owned(),
        id,
        incarnation: incarnation(id),
        formed: false,
        leads: false,
        lanes: 3,
        ours: None,
        members: BTreeMap::new(),
        shown: Vec::new(),
    }
}

/// One that has formed with these, asked by scheduler `asker`.
fn formed(id: u64, asker: u64, members: &[u64]) -> Answer {
    let members: BTreeMap<_, _> = members.iter().map(|id| (*id, incarnation(*id))).collect();
    Answer {
        formed: true,
        ours: members.get(&asker).copied(),
        members,
        ..waiting(id)
    }
}

fn silent() -> Result<Answer, String> {
    Err("no answer".to_owned())
}

/// A round of questions of scheduler 1: what 2 and 3 say.
fn round(
    forming: &mut Forming<'_>,
    answers: [Result<Answer, String>; 2],
) -> Result<Option<Formed>, StartError> {
    forming.begin_round();
    for (id, answer) in (2..).zip(answers) {
        let formed = forming.on_answer(id, &format!("host-{id}:7400"), answer)?;
        if formed.is_some() {
            return Ok(formed);
        }
    }
    Ok(forming.end_round())
}

#[test]
fn a_cluster_forms_when_all_have_answered_in_one_round() {
    let (identity, cluster) = (identity(1), cluster());
    let mut forming = Forming::new(&identity, &cluster);
    assert_eq!(round(&mut forming, [Ok(waiting(2)), silent()]).unwrap(), None);
    assert_eq!(round(&mut forming, [silent(), Ok(waiting(3))]).unwrap(), None);
    let all = round(&mut forming, [Ok(waiting(2)), Ok(waiting(3))])
        .unwrap()
        .unwrap();
    assert_eq!(all.members, (1..=3).map(|id| (id, incarnation(id))).collect());
}

/// Scheduler 3 formed while 2 did not answer this one for a moment. Formed with itself and 3 alone, it would refuse 2 for ever.
#[test]
fn one_that_hears_of_it_from_another_knows_all_members_all_the_same() {
    let (identity, cluster) = (identity(1), cluster());
    let mut forming = Forming::new(&identity, &cluster);
    let heard = round(&mut forming, [silent(), Ok(formed(3, 1, &[1, 2, 3]))])
        .unwrap()
        .unwrap();
    assert_eq!(heard.members.keys().collect::<Vec<_>>(), [&1, &2, &3]);
    assert_eq!(heard.lanes, 3);
}

/// A release before this one formed with a part of the list: that it has not heard of this directory says nothing.
#[test]
fn one_that_knows_a_part_of_the_members_refuses_nobody() {
    let (identity, cluster) = (identity(1), cluster());
    let mut forming = Forming::new(&identity, &cluster);
    let part = || Ok(formed(2, 1, &[2, 3]));
    assert_eq!(round(&mut forming, [part(), silent()]).unwrap(), None);
    assert!(
        forming.missing[0].contains("has not heard of this one"),
        "{:?}",
        forming.missing
    );
    let all = round(&mut forming, [part(), Ok(formed(3, 1, &[1, 2, 3]))]).unwrap();
    assert_eq!(all.unwrap().members.len(), 3);
}

#[test]
fn a_directory_that_is_not_the_known_one_is_refused() {
    let (identity, cluster) = (identity(1), cluster());
    let other = Answer {
        ours: Some([9; 16]),
        ..formed(2, 1, &[1, 2, 3])
    };
    // Removed since: it is in the list, and no member any more.
    let removed = Answer {
        ours: None,
        ..formed(2, 1, &[1, 2, 3])
    };
    for answer in [other, removed] {
        let refused = round(&mut Forming::new(&identity, &cluster), [Ok(answer), silent()]);
        let text = refused.unwrap_err().to_string();
        assert!(text.contains("scheduler 1 was known to scheduler 2"), "{text}");
    }
}
