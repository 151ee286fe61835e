//! What becomes of jobs whose worker or client goes away.

use super::{Transcript, both, ours};

pub(super) const ALL: &[Transcript] = &[
    both(
        "a worker's job goes on when it leaves",
        r"
        w> CAN_DO {f}
        c> SUBMIT_JOB {f}||1
        c< JOB_CREATED {h1}
        w> GRAB_JOB
        w< JOB_ASSIGN {h1}|{f}|1
        w> WORK_STATUS {h1}|1|2
        c< WORK_STATUS {h1}|1|2
        x> CAN_DO {f}
        x> PRE_SLEEP
        x< nothing
        w> close
        x< NOOP
        c= show_jobs {h1}\t1\t0\t0
        x> GRAB_JOB
        x< JOB_ASSIGN {h1}|{f}|1
        x> WORK_COMPLETE {h1}|done
        c< WORK_COMPLETE {h1}|done",
    ),
    ours(
        "a requeued job keeps its place",
        "1.1.20 puts it at the end",
        r"
        w> CAN_DO {f}
        c> SUBMIT_JOB_BG {f}||1
        c< JOB_CREATED {h1}
        c> SUBMIT_JOB_BG {f}||2
        c< JOB_CREATED {h2}
        w> GRAB_JOB
        w< JOB_ASSIGN {h1}|{f}|1
        w> close
        c~ status {f}\t2\t0\t0
        x> CAN_DO {f}
        x> GRAB_JOB
        x< JOB_ASSIGN {h1}|{f}|1
        x> GRAB_JOB
        x< JOB_ASSIGN {h2}|{f}|2",
    ),
    ours(
        "requeued jobs keep their order, and their priority",
        "1.1.20 puts them at the end",
        r"
        w> CAN_DO {f}
        c> SUBMIT_JOB_BG {f}||1
        c< JOB_CREATED {h1}
        c> SUBMIT_JOB_BG {f}||2
        c< JOB_CREATED {h2}
        c> SUBMIT_JOB_BG {f}||3
        c< JOB_CREATED {h3}
        w> GRAB_JOB
        w< JOB_ASSIGN {h1}|{f}|1
        w> GRAB_JOB
        w< JOB_ASSIGN {h2}|{f}|2
        w> close
        c~ status {f}\t3\t0\t0
        c> SUBMIT_JOB_HIGH_BG {f}||4
        c< JOB_CREATED {h4}
        x> CAN_DO {f}
        x> GRAB_JOB
        x< JOB_ASSIGN {h4}|{f}|4
        x> GRAB_JOB
        x< JOB_ASSIGN {h1}|{f}|1
        x> GRAB_JOB
        x< JOB_ASSIGN {h2}|{f}|2
        x> GRAB_JOB
        x< JOB_ASSIGN {h3}|{f}|3",
    ),
    both(
        "CANT_DO gives a running job away",
        r"
        w> CAN_DO {f}
        c> SUBMIT_JOB {f}||1
        c< JOB_CREATED {h1}
        w> GRAB_JOB
        w< JOB_ASSIGN {h1}|{f}|1
        w> CANT_DO {f}
        w> WORK_COMPLETE {h1}|late
        w< ERROR JOB_NOT_FOUND|Job given in work result not found
        c= status {f}\t1\t0\t0
        x> CAN_DO {f}
        x> GRAB_JOB
        x< JOB_ASSIGN {h1}|{f}|1
        x> WORK_COMPLETE {h1}|
        c< WORK_COMPLETE {h1}|",
    ),
    both(
        "RESET_ABILITIES gives all running jobs away",
        r"
        w> CAN_DO {f}
        w> CAN_DO {g}
        c> SUBMIT_JOB {g}||2
        c< JOB_CREATED {h2}
        c> SUBMIT_JOB {f}||1
        c< JOB_CREATED {h1}
        w> GRAB_JOB
        w< JOB_ASSIGN {h2}|{g}|2
        w> GRAB_JOB
        w< JOB_ASSIGN {h1}|{f}|1
        w> RESET_ABILITIES
        w> WORK_DATA {h1}|late
        w< ERROR JOB_NOT_FOUND|Job does not exist on server
        c= status {f}\t1\t0\t0
        c= status {g}\t1\t0\t0
        w> CAN_DO {f}
        w> GRAB_JOB
        w< JOB_ASSIGN {h1}|{f}|1",
    ),
    ours(
        "a queued job is given up with its last client",
        "1.1.20 keeps it until a worker comes by",
        r"
        c> SUBMIT_JOB {f}|{u}|
        c< JOB_CREATED {h1}
        d> SUBMIT_JOB {f}|{u}|
        d< JOB_CREATED {h1}
        a> connect
        c> close
        d> GET_STATUS_UNIQUE {u}
        d< STATUS_RES_UNIQUE {u}|1|0|0|0|{*}
        d> close
        a~ status {f}\t0\t0\t0
        a= show_jobs -{h1}\t{*}
        a= show_unique_jobs -{u}
        a> GET_STATUS {h1}
        a< STATUS_RES {h1}|0|0|0|0",
    ),
    both(
        "a job without clients isn't run",
        r"
        w> CAN_DO {f}
        c> SUBMIT_JOB {f}||
        c< JOB_CREATED {h1}
        a> SET_CLIENT_ID {i}
        c> SET_CLIENT_ID {j}
        a= workers {*} {j} :
        c> close
        a~ workers -{*} {j} :
        w> GRAB_JOB
        w< NO_JOB
        a= status {f}\t0\t0\t1",
    ),
    both(
        "a background job doesn't need its client",
        r"
        c> SUBMIT_JOB_BG {f}||
        c< JOB_CREATED {h1}
        c> SET_CLIENT_ID {j}
        a= workers {*} {j} :
        c> close
        a~ workers -{*} {j} :
        w> CAN_DO {f}
        w> GRAB_JOB
        w< JOB_ASSIGN {h1}|{f}|",
    ),
    both(
        "a running job without clients goes on",
        r"
        w> CAN_DO {f}
        c> SUBMIT_JOB {f}||
        c< JOB_CREATED {h1}
        c> SET_CLIENT_ID {j}
        w> GRAB_JOB
        w< JOB_ASSIGN {h1}|{f}|
        c> close
        a~ workers -{*} {j} :
        w> WORK_DATA {h1}|x
        w> WORK_COMPLETE {h1}|y
        w< nothing
        a= status {f}\t0\t0\t1",
    ),
    both(
        "a running job without clients isn't run again",
        r"
        w> CAN_DO {f}
        c> SUBMIT_JOB {f}||
        c< JOB_CREATED {h1}
        c> SET_CLIENT_ID {j}
        w> GRAB_JOB
        w< JOB_ASSIGN {h1}|{f}|
        c> close
        a~ workers -{*} {j} :
        w> CANT_DO {f}
        w> CAN_DO {f}
        w> GRAB_JOB
        w< NO_JOB
        a= status {f}\t0\t0\t1",
    ),
    both(
        "--job-retries 2 is two attempts",
        r"
        w> CAN_DO {f}
        c> SUBMIT_JOB {f}||1
        c< JOB_CREATED {h1}
        w> GRAB_JOB
        w< JOB_ASSIGN {h1}|{f}|1
        w> close
        c~ status {f}\t1\t0\t0
        c= show_jobs {h1}\t1\t0\t0
        c< nothing
        x> CAN_DO {f}
        x> GRAB_JOB
        x< JOB_ASSIGN {h1}|{f}|1
        x> close
        c< WORK_FAIL {h1}
        c~ status {f}\t0\t0\t0
        c> GET_STATUS {h1}
        c< STATUS_RES {h1}|0|0|0|0
        c< nothing",
    )
    .with(&["--job-retries=2"]),
    both(
        "--job-retries counts timeouts and CANT_DO",
        r"
        w> CAN_DO_TIMEOUT {f}|1000
        c> SUBMIT_JOB {f}||1
        c< JOB_CREATED {h1}
        w> GRAB_JOB
        w< JOB_ASSIGN {h1}|{f}|1
        c~ status {f}\t1\t0\t1
        w> GRAB_JOB
        w< JOB_ASSIGN {h1}|{f}|1
        w> CANT_DO {f}
        c< WORK_FAIL {h1}
        w> WORK_COMPLETE {h1}|
        w< ERROR JOB_NOT_FOUND|Job given in work result not found",
    )
    .with(&["--job-retries=2"]),
    both(
        "--job-retries 1 is one attempt, for background work too",
        r"
        w> CAN_DO {f}
        c> SUBMIT_JOB_BG {f}||1
        c< JOB_CREATED {h1}
        c> SUBMIT_JOB {f}||2
        c< JOB_CREATED {h2}
        w> GRAB_JOB
        w< JOB_ASSIGN {h1}|{f}|1
        w> GRAB_JOB
        w< JOB_ASSIGN {h2}|{f}|2
        w> close
        c< WORK_FAIL {h2}
        c~ status {f}\t0\t0\t0
        c< nothing",
    )
    .with(&["--job-retries=1"]),
    ours(
        "--job-retries 0 never tries again",
        "1.1.20 takes 0 for unlimited",
        r"
        w> CAN_DO {f}
        c> SUBMIT_JOB {f}||2
        c< JOB_CREATED {h1}
        w> GRAB_JOB
        w< JOB_ASSIGN {h1}|{f}|2
        w> close
        c< WORK_FAIL {h1}",
    )
    .with(&["--job-retries=0"]),
    both(
        "--job-handle-prefix is taken as it is",
        r"
        c> SUBMIT_JOB_BG {f}||
        c< JOB_CREATED {h1}
        c= show_jobs pre:fix:{*}\t0\t0\t1",
    )
    .with(&["--job-handle-prefix", "pre:fix"]),
];
