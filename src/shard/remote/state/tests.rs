//! The home's half of the rules between cores, by itself: what each event leads to.
//!
//! Core 0 is the home; 1 and 2 own functions of the worker. Whole cores that talk to each other are
//! in `shard::tests::cluster` and in `tests/cross_core_model`.

use super::*;

const CORES: Cores = Cores { own: 0, count: 3 };
const NONE: PrioritySet = PrioritySet::EMPTY;
const HIGH: PrioritySet = PrioritySet::from_bits(1);
const NORMAL: PrioritySet = PrioritySet::from_bits(2);
const LOW: PrioritySet = PrioritySet::from_bits(4);

/// A worker with a function of core 1 and one of core 2.
fn worker() -> RemoteState {
    let mut state = RemoteState::new(CORES);
    state.become_multi_core(NONE, false, false);
    assert!(!state.register(1, b"f") && !state.register(2, b"g"), "it doesn't sleep");
    state.note_known(1);
    state.note_known(2);
    state
}

/// The cores that a grab asks, and how urgent a job must be; each answers that it has none, and
/// nothing left.
fn asked_in_vain(state: &mut RemoteState, urgency: &Urgency) -> Vec<(Core, Priority)> {
    let mut asked = Vec::new();
    state.grab(Grab::Plain);
    while let Some(GrabStep::Ask(core, least, _)) = state.next_step(urgency) {
        asked.push((core, least));
        assert_eq!(state.answered(core, NONE, false), None);
    }
    assert!(!state.is_grabbing(), "it has got NO_JOB");
    asked
}

/// The worker sleeps, and all its owners know.
fn asleep() -> RemoteState {
    let mut state = worker();
    asked_in_vain(&mut state, &Urgency::default());
    assert!(state.sleep());
    let told: Vec<Core> = (0..3).filter(|&core| state.tell(core)).collect();
    assert_eq!(told, [0, 1, 2]);
    state
}

#[test]
fn without_hints_each_owner_is_asked_once_for_anything() {
    let asked = asked_in_vain(&mut worker(), &Urgency::default());
    assert_eq!(asked, [(0, Priority::Low), (1, Priority::Low), (2, Priority::Low)]);
}

#[test]
fn the_most_urgent_hint_is_followed_first_and_equal_ones_in_turns() {
    let mut state = worker();
    let urgency = Urgency::default();
    state.hint(1, LOW);
    state.hint(2, NORMAL | LOW);
    state.hint(0, NORMAL);
    state.grab(Grab::Unique);
    let step = GrabStep::Ask(2, Priority::Normal, Grab::Unique);
    assert_eq!(state.next_step(&urgency), Some(step), "0 was asked last");
    assert_eq!(state.answered(2, LOW, true), None);
    state.grab(Grab::Unique);
    let step = GrabStep::Ask(0, Priority::Normal, Grab::Unique);
    assert_eq!(state.next_step(&urgency), Some(step));
    state.answered(0, NONE, false);
    let step = GrabStep::Ask(1, Priority::Low, Grab::Unique);
    assert_eq!(state.next_step(&urgency), Some(step), "and 2 has its turn behind it");
}

#[test]
fn an_owner_that_was_not_heard_is_asked_for_what_it_publishes() {
    let mut state = worker();
    let urgency = Urgency::default();
    state.hint(1, NORMAL);
    urgency.publish(2, HIGH);
    state.grab(Grab::Plain);
    let step = GrabStep::Ask(2, Priority::High, Grab::Plain);
    assert_eq!(state.next_step(&urgency), Some(step));
    state.answered(2, NONE, false);
    let step = GrabStep::Ask(1, Priority::Normal, Grab::Plain);
    assert_eq!(state.next_step(&urgency), Some(step), "it has been heard now");
}

#[test]
fn an_owner_that_the_worker_has_submitted_to_may_have_anything() {
    let mut state = worker();
    assert_eq!(state.count_submission(1), 1);
    state.hint(2, NORMAL);
    state.grab(Grab::Plain);
    let step = GrabStep::Ask(1, Priority::High, Grab::Plain);
    assert_eq!(state.next_step(&Urgency::default()), Some(step));
}

/// A worker that submitted a job for its own function, withdrew the function and named it again in
/// one write got a less urgent job of another core.
#[test]
fn a_job_on_its_way_counts_though_the_worker_has_withdrawn_the_function_meanwhile() {
    for submits_first in [false, true] {
        let mut state = worker();
        if submits_first {
            assert!(state.unregister(1, b"f"));
        }
        state.count_submission(1);
        if !submits_first {
            assert!(state.unregister(1, b"f"));
        }
        state.hint(2, NORMAL);
        state.grab(Grab::Plain);
        let step = GrabStep::Ask(2, Priority::Normal, Grab::Plain);
        assert_eq!(state.next_step(&Urgency::default()), Some(step), "1 owns no function of it");
        state.answered(2, NORMAL, true);
        assert!(!state.register(1, b"f"));
        state.grab(Grab::Plain);
        let step = GrabStep::Ask(1, Priority::High, Grab::Plain);
        assert_eq!(state.next_step(&Urgency::default()), Some(step), "{submits_first}");
    }
}

#[test]
fn a_worker_with_any_hint_is_not_put_to_sleep() {
    let mut state = worker();
    state.hint(1, LOW);
    assert!(!state.sleep());
    assert!(!state.tell(1), "no owner is told of a sleep that isn't");
    asked_in_vain(&mut state, &Urgency::default());
    assert!(state.sleep());
}

#[test]
fn the_first_noop_wakes_and_every_other_owner_that_woke_it_is_declined() {
    let mut state = asleep();
    assert_eq!(state.noop(1, NORMAL), Noop::Wake);
    assert_eq!(state.noop(2, HIGH), Noop::Decline);
    // The job of the owner that was declined is worth asking for all the same.
    state.grab(Grab::Plain);
    let step = GrabStep::Ask(2, Priority::High, Grab::Plain);
    assert_eq!(state.next_step(&Urgency::default()), Some(step));
    assert_eq!(state.answered(2, NONE, true), Some(1), "1 holds a lease for it and wakes another");
}

#[test]
fn a_job_of_the_owner_that_woke_it_ends_the_lease_there_and_declines_nothing() {
    let mut state = asleep();
    assert_eq!(state.noop(2, NORMAL), Noop::Wake);
    state.hint(1, NORMAL);
    state.grab(Grab::Plain);
    let step = GrabStep::Ask(2, Priority::Normal, Grab::Plain);
    assert_eq!(state.next_step(&Urgency::default()), Some(step), "before its equals");
    assert_eq!(state.answered(2, NONE, true), None);
}

#[test]
fn a_noop_of_a_core_that_was_never_told_is_declined_and_wakes_nothing() {
    let mut state = asleep();
    assert!(state.unregister(2, b"g"));
    assert_eq!(state.noop(2, HIGH), Noop::Decline);
    assert!(state.is_asleep());
    assert_eq!(state.noop(1, NORMAL), Noop::Wake);
}

#[test]
fn a_function_that_is_added_in_its_sleep_tells_its_owner_of_the_sleep() {
    let mut state = asleep();
    assert!(state.unregister(2, b"g"));
    assert!(state.register(2, b"h"), "it is told once more");
    assert!(!state.register(2, b"i"), "and knows by then");
    assert!(!state.unregister(2, b"g"), "it is gone already");
}

#[test]
fn resetting_abilities_tells_each_owner_and_frees_the_memory() {
    let mut state = worker();
    assert!(state.function_bytes() > 0);
    assert_eq!(state.unregister_all().iter().collect::<Vec<Core>>(), [1, 2]);
    assert_eq!((state.function_bytes(), state.unregister_all().is_empty()), (0, true));
    assert_eq!(asked_in_vain(&mut state, &Urgency::default()), [(0, Priority::Low)]);
}

#[test]
fn a_connection_may_move_to_the_one_core_that_knows_of_it_unless_it_is_pinned() {
    let mut state = RemoteState::new(CORES);
    assert_eq!(state.home_to_be(), None);
    state.note_known(2);
    assert_eq!(state.home_to_be(), Some(2));
    state.note_known(1);
    assert_eq!(state.home_to_be(), None, "there are two");
    let mut state = RemoteState::new(CORES);
    state.note_known(2);
    state.pin();
    assert_eq!(state.home_to_be(), None);
}

#[test]
fn submissions_in_a_row_are_counted_until_the_first_for_this_core() {
    let mut state = RemoteState::new(CORES);
    assert_eq!([1, 2, 0, 1].map(|owner| state.count_submission(owner)), [1, 2, 0, 1]);
}

#[test]
fn an_offloaded_worker_sleeps_on_and_its_owner_wakes_it() {
    let functions = || vec![Box::from(&b"f"[..])];
    let mut state = RemoteState::with_jobs_at(1, CORES, functions(), NORMAL, Rest::Asleep);
    assert!(!state.tell(0) && !state.tell(1), "both know");
    assert_eq!(state.noop(1, NORMAL), Noop::Wake);
    // Awake, it is owed what the owner had for it when it left.
    let mut state = RemoteState::with_jobs_at(1, CORES, functions(), NORMAL, Rest::Woken);
    state.grab(Grab::Plain);
    let step = GrabStep::Ask(1, Priority::Normal, Grab::Plain);
    assert_eq!(state.next_step(&Urgency::default()), Some(step));
    assert_eq!(state.answered(1, NONE, true), None, "that was the lease's own job");
    let state = RemoteState::with_jobs_at(1, CORES, Vec::new(), NONE, Rest::Awake);
    assert!(!state.is_multi_core(), "it has no functions");
}
