//! What workers say of themselves: what they can do, that they sleep, that they want a job.

use super::{Transcript, both, ours};

pub(super) const ALL: &[Transcript] = &[
    both(
        "no function, no job",
        r"
        w> GRAB_JOB
        w< NO_JOB
        w> GRAB_JOB_UNIQ
        w< NO_JOB
        w> GRAB_JOB_ALL
        w< NO_JOB
        w> PRE_SLEEP
        w< nothing",
    ),
    both(
        "three forms of assignment",
        r"
        w> CAN_DO {f}
        c> SUBMIT_JOB {f}|{u}|1
        c< JOB_CREATED {h1}
        c> SUBMIT_JOB {f}|{v}|2
        c< JOB_CREATED {h2}
        c> SUBMIT_JOB {f}||3
        c< JOB_CREATED {h3}
        w> GRAB_JOB
        w< JOB_ASSIGN {h1}|{f}|1
        w> GRAB_JOB_UNIQ
        w< JOB_ASSIGN_UNIQ {h2}|{f}|{v}|2
        w> GRAB_JOB_ALL
        w< JOB_ASSIGN_UNIQ {h3}|{f}||3",
    ),
    both(
        "CAN_DO and CANT_DO count in status",
        r"
        w> CAN_DO {f}
        c~ status {f}\t0\t0\t1
        x> CAN_DO {f}
        c~ status {f}\t0\t0\t2
        w> CANT_DO {f}
        c~ status {f}\t0\t0\t1
        w> CANT_DO {f}
        w> CANT_DO {g}
        w< nothing
        c= status {f}\t0\t0\t1
        c= status -{g}\t{*}
        x> close
        c~ status {f}\t0\t0\t0",
    ),
    ours(
        "CAN_DO twice is one registration",
        "1.1.20 registers it twice",
        r"
        w> CAN_DO {f}
        w> CAN_DO {f}
        w> CAN_DO_TIMEOUT {f}|5000
        c= status {f}\t0\t0\t1
        w> SET_CLIENT_ID {i}
        c= workers {*} 127.0.0.1 {i} : {f}
        w> CANT_DO {f}
        c= status {f}\t0\t0\t0
        c= workers {*} 127.0.0.1 {i} :",
    ),
    both(
        "RESET_ABILITIES forgets all functions",
        r"
        w> CAN_DO {f}
        w> CAN_DO {g}
        c> SUBMIT_JOB {f}||
        c< JOB_CREATED {h1}
        w> RESET_ABILITIES
        w> GRAB_JOB
        w< NO_JOB
        c= status {f}\t1\t0\t0
        c= status {g}\t0\t0\t0
        w> CAN_DO {f}
        w> GRAB_JOB
        w< JOB_ASSIGN {h1}|{f}|",
    ),
    both(
        "a sleeper is woken once",
        r"
        w> CAN_DO {f}
        w> PRE_SLEEP
        w< nothing
        c> SUBMIT_JOB {f}||1
        c< JOB_CREATED {h1}
        w< NOOP
        c> SUBMIT_JOB {f}||2
        c< JOB_CREATED {h2}
        w< nothing
        w> GRAB_JOB
        w< JOB_ASSIGN {h1}|{f}|1
        c> SUBMIT_JOB {f}||3
        c< JOB_CREATED {h3}
        w< nothing",
    ),
    both(
        "every kind of submission wakes",
        r"
        w> CAN_DO {f}
        w> PRE_SLEEP
        c> SUBMIT_JOB_LOW_BG {f}||1
        c< JOB_CREATED {h1}
        w< NOOP
        w> GRAB_JOB
        w< JOB_ASSIGN {h1}|{f}|1
        w> PRE_SLEEP
        c> SUBMIT_JOB_HIGH {f}||2
        c< JOB_CREATED {h2}
        w< NOOP
        w> GRAB_JOB
        w< JOB_ASSIGN {h2}|{f}|2
        w> PRE_SLEEP
        c> SUBMIT_JOB_EPOCH {f}||1|3
        c< JOB_CREATED {h3}
        w< NOOP
        w> GRAB_JOB
        w< JOB_ASSIGN {h3}|{f}|3
        w> PRE_SLEEP
        c> SUBMIT_REDUCE_JOB_BACKGROUND {f}||r||4
        c< JOB_CREATED {h4}
        w< NOOP
        w> GRAB_JOB
        w< JOB_ASSIGN {h4}|{f}|4",
    ),
    both(
        "PRE_SLEEP with a job waiting answers at once",
        r"
        w> CAN_DO {f}
        c> SUBMIT_JOB {f}||
        c< JOB_CREATED {h1}
        w> PRE_SLEEP
        w< NOOP
        w> PRE_SLEEP
        w< NOOP
        w> GRAB_JOB
        w< JOB_ASSIGN {h1}|{f}|
        w> PRE_SLEEP
        w< nothing",
    ),
    both(
        "a job that isn't due doesn't answer PRE_SLEEP",
        r"
        w> CAN_DO {f}
        c> SUBMIT_JOB_EPOCH {f}||{now+1000}|
        c< JOB_CREATED {h1}
        w> PRE_SLEEP
        w< nothing
        w> GRAB_JOB
        w< NO_JOB",
    ),
    both(
        "grabbing ends the sleep",
        r"
        w> CAN_DO {f}
        w> PRE_SLEEP
        w> GRAB_JOB
        w< NO_JOB
        c> SUBMIT_JOB {f}||
        c< JOB_CREATED {h1}
        w< nothing
        w> PRE_SLEEP
        w< NOOP",
    ),
    both(
        "sleepers of other functions sleep on",
        r"
        w> CAN_DO {f}
        w> PRE_SLEEP
        x> CAN_DO {g}
        x> PRE_SLEEP
        x< nothing
        c> SUBMIT_JOB {f}||
        c< JOB_CREATED {h1}
        w< NOOP
        x< nothing",
    ),
    ours(
        "as many wake as there are jobs, the last to sleep first",
        "1.1.20 wakes all",
        r"
        w> CAN_DO {f}
        w> PRE_SLEEP
        x> CAN_DO {f}
        x> PRE_SLEEP
        y> CAN_DO {f}
        y> PRE_SLEEP
        y< nothing
        c> SUBMIT_JOB {f}||1
        c< JOB_CREATED {h1}
        y< NOOP
        y> GRAB_JOB
        y< JOB_ASSIGN {h1}|{f}|1
        x< nothing
        w< nothing
        c> SUBMIT_JOB {f}||2
        c< JOB_CREATED {h2}
        x< NOOP
        x> GRAB_JOB
        x< JOB_ASSIGN {h2}|{f}|2
        w< nothing
        y< nothing",
    ),
    ours(
        "a woken worker that doesn't grab is passed over",
        "1.1.20 wakes all",
        r"
        w> CAN_DO {f}
        w> PRE_SLEEP
        x> CAN_DO {f}
        x> PRE_SLEEP
        x< nothing
        c> SUBMIT_JOB {f}||1
        c< JOB_CREATED {h1}
        x< NOOP
        w< NOOP
        w> GRAB_JOB
        w< JOB_ASSIGN {h1}|{f}|1",
    ),
    ours(
        "a woken worker that leaves hands its job on",
        "1.1.20 wakes all",
        r"
        w> CAN_DO {f}
        w> PRE_SLEEP
        x> CAN_DO {f}
        x> PRE_SLEEP
        x< nothing
        c> SUBMIT_JOB {f}||1
        c< JOB_CREATED {h1}
        x< NOOP
        x> close
        w< NOOP
        w> GRAB_JOB
        w< JOB_ASSIGN {h1}|{f}|1",
    ),
    both(
        "--worker-wakeup 0 wakes all",
        r"
        w> CAN_DO {f}
        w> PRE_SLEEP
        x> CAN_DO {f}
        x> PRE_SLEEP
        y> CAN_DO {f}
        y> PRE_SLEEP
        y< nothing
        c> SUBMIT_JOB {f}||1
        c< JOB_CREATED {h1}
        w< NOOP
        x< NOOP
        y< NOOP
        x> GRAB_JOB
        x< JOB_ASSIGN {h1}|{f}|1
        w> GRAB_JOB
        w< NO_JOB",
    )
    .with(&["-w", "0"]),
    both(
        "a worker may hold several jobs",
        r"
        w> CAN_DO {f}
        c> SUBMIT_JOB {f}||1
        c< JOB_CREATED {h1}
        c> SUBMIT_JOB {f}||2
        c< JOB_CREATED {h2}
        w> GRAB_JOB
        w< JOB_ASSIGN {h1}|{f}|1
        w> GRAB_JOB
        w< JOB_ASSIGN {h2}|{f}|2
        c= status {f}\t2\t2\t1
        w> WORK_COMPLETE {h2}|b
        c< WORK_COMPLETE {h2}|b
        w> WORK_COMPLETE {h1}|a
        c< WORK_COMPLETE {h1}|a
        c= status {f}\t0\t0\t1",
    ),
    both(
        "CAN_DO_TIMEOUT gives a job to the next worker",
        r"
        w> CAN_DO_TIMEOUT {f}|1000
        c> SUBMIT_JOB {f}||1
        c< JOB_CREATED {h1}
        w> GRAB_JOB
        w< JOB_ASSIGN {h1}|{f}|1
        c= status {f}\t1\t1\t1
        c~ status {f}\t1\t0\t1
        c= show_jobs {h1}\t1\t0\t0
        w> WORK_COMPLETE {h1}|late
        w< ERROR JOB_NOT_FOUND|Job given in work result not found
        c< nothing
        x> CAN_DO {f}
        x> GRAB_JOB
        x< JOB_ASSIGN {h1}|{f}|1
        x> WORK_COMPLETE {h1}|in time
        c< WORK_COMPLETE {h1}|in time",
    ),
    both(
        "CAN_DO_TIMEOUT below a second is a second",
        r"
        w> CAN_DO_TIMEOUT {f}|1
        c> SUBMIT_JOB {f}||1
        c< JOB_CREATED {h1}
        w> GRAB_JOB
        w< JOB_ASSIGN {h1}|{f}|1
        c= status {f}\t1\t1\t1
        c~ status {f}\t1\t0\t1",
    ),
    both(
        "CAN_DO_TIMEOUT 0 has no timeout",
        r"
        w> CAN_DO_TIMEOUT {f}|0
        x> CAN_DO_TIMEOUT {g}|1000
        c> SUBMIT_JOB {f}||1
        c< JOB_CREATED {h1}
        c> SUBMIT_JOB {g}||2
        c< JOB_CREATED {h2}
        w> GRAB_JOB
        w< JOB_ASSIGN {h1}|{f}|1
        x> GRAB_JOB
        x< JOB_ASSIGN {h2}|{g}|2
        c~ status {g}\t1\t0\t1
        c= status {f}\t1\t1\t1",
    ),
    both(
        "CAN_DO_TIMEOUT in time is nothing special",
        r"
        w> CAN_DO_TIMEOUT {f}|60000
        c> SUBMIT_JOB {f}||1
        c< JOB_CREATED {h1}
        w> GRAB_JOB
        w< JOB_ASSIGN {h1}|{f}|1
        w> WORK_COMPLETE {h1}|done
        c< WORK_COMPLETE {h1}|done",
    ),
    both(
        "SET_CLIENT_ID shows in workers",
        r"
        w> CAN_DO {f}
        c= workers {*} 127.0.0.1 - : {f}
        w> SET_CLIENT_ID {i}
        c= workers {*} 127.0.0.1 {i} : {f}
        w> SET_CLIENT_ID {j}
        w< nothing
        c= workers -{*} 127.0.0.1 {i} : {f}
        c= workers {*} 127.0.0.1 {j} : {f}",
    ),
    both(
        "SET_CLIENT_ID is cut after 127 bytes",
        r"
        w> CAN_DO {f}
        w> SET_CLIENT_ID {x*127}y
        c= workers {*} 127.0.0.1 {x*127} : {f}",
    ),
    both(
        "a timeout wakes a sleeper",
        r"
        w> CAN_DO_TIMEOUT {f}|1000
        c> SUBMIT_JOB {f}||1
        c< JOB_CREATED {h1}
        w> GRAB_JOB
        w< JOB_ASSIGN {h1}|{f}|1
        x> CAN_DO {f}
        x> PRE_SLEEP
        x< NOOP
        x> GRAB_JOB
        x< JOB_ASSIGN {h1}|{f}|1
        w> WORK_DATA {h1}|late
        w< ERROR JOB_NOT_FOUND|Job does not exist on server",
    ),
    ours(
        "a woken worker that finds nothing and sleeps is woken again",
        "1.1.20 forgets it unless it grabs",
        r"
        w> CAN_DO {f}
        w> PRE_SLEEP
        w< nothing
        c> SUBMIT_JOB {f}||1
        c< JOB_CREATED {h1}
        w< NOOP
        x> CAN_DO {f}
        x> GRAB_JOB
        x< JOB_ASSIGN {h1}|{f}|1
        w> PRE_SLEEP
        w< nothing
        c> SUBMIT_JOB {f}||2
        c< JOB_CREATED {h2}
        w< NOOP",
    ),
    both(
        "a sleeper that can do several functions is woken for each",
        r"
        w> CAN_DO {f}
        w> CAN_DO {g}
        w> PRE_SLEEP
        c> SUBMIT_JOB {g}||1
        c< JOB_CREATED {h1}
        w< NOOP
        w> GRAB_JOB
        w< JOB_ASSIGN {h1}|{g}|1
        w> PRE_SLEEP
        c> SUBMIT_JOB {f}||2
        c< JOB_CREATED {h2}
        w< NOOP
        w> GRAB_JOB
        w< JOB_ASSIGN {h2}|{f}|2",
    ),
    both(
        "a sleeper that can't do it any more sleeps on",
        r"
        w> CAN_DO {f}
        w> CAN_DO {g}
        w> PRE_SLEEP
        w> CANT_DO {f}
        c> SUBMIT_JOB {f}||1
        c< JOB_CREATED {h1}
        w< nothing
        c> SUBMIT_JOB {g}||2
        c< JOB_CREATED {h2}
        w< NOOP",
    ),
    both(
        "a worker whose requests come in one piece",
        r"
        c> SUBMIT_JOB {f}||1
        c< JOB_CREATED {h1}
        w> CAN_DO {f}
        w> GRAB_JOB
        w> GRAB_JOB
        w> PRE_SLEEP
        w> ECHO_REQ end
        w< JOB_ASSIGN {h1}|{f}|1
        w< NO_JOB
        w< ECHO_RES end
        c> SUBMIT_JOB {f}||2
        c< JOB_CREATED {h2}
        w< NOOP",
    ),
];
