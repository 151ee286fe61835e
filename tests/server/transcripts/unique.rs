//! Equal work is run once: who shares a job, and what becomes of it when some of them leave.

use super::{Transcript, both, ours};

pub(super) const ALL: &[Transcript] = &[
    both(
        "foreground joins foreground",
        r"
        w> CAN_DO {f}
        c> SUBMIT_JOB {f}|{u}|first
        c< JOB_CREATED {h1}
        d> SUBMIT_JOB_HIGH {f}|{u}|second
        d< JOB_CREATED {h1}
        c= status {f}\t1\t0\t1
        c> GET_STATUS_UNIQUE {u}
        c< STATUS_RES_UNIQUE {u}|1|0|0|0|2
        w> GRAB_JOB
        w< JOB_ASSIGN {h1}|{f}|first
        w> GRAB_JOB
        w< NO_JOB
        w> WORK_COMPLETE {h1}|result
        c< WORK_COMPLETE {h1}|result
        d< WORK_COMPLETE {h1}|result",
    ),
    both(
        "joining while the job runs gets what comes later",
        r"
        w> CAN_DO {f}
        c> SUBMIT_JOB {f}|{u}|
        c< JOB_CREATED {h1}
        w> GRAB_JOB
        w< JOB_ASSIGN {h1}|{f}|
        w> WORK_DATA {h1}|early
        c< WORK_DATA {h1}|early
        d> SUBMIT_JOB {f}|{u}|
        d< JOB_CREATED {h1}
        w> WORK_DATA {h1}|late
        c< WORK_DATA {h1}|late
        d< WORK_DATA {h1}|late
        w> WORK_COMPLETE {h1}|
        c< WORK_COMPLETE {h1}|
        d< WORK_COMPLETE {h1}|
        d> SUBMIT_JOB {f}|{u}|again
        d< JOB_CREATED {h2}
        w> GRAB_JOB
        w< JOB_ASSIGN {h2}|{f}|again",
    ),
    both(
        "a connection that joins its own job gets all of it twice",
        r"
        w> CAN_DO {f}
        c> SUBMIT_JOB {f}|{u}|
        c< JOB_CREATED {h1}
        c> SUBMIT_JOB {f}|{u}|
        c< JOB_CREATED {h1}
        w> GRAB_JOB
        w< JOB_ASSIGN {h1}|{f}|
        w> WORK_DATA {h1}|x
        c< WORK_DATA {h1}|x
        c< WORK_DATA {h1}|x
        w> WORK_COMPLETE {h1}|y
        c< WORK_COMPLETE {h1}|y
        c< WORK_COMPLETE {h1}|y
        c< nothing",
    ),
    both(
        "background joins background",
        r"
        w> CAN_DO {f}
        c> SUBMIT_JOB_BG {f}|{u}|1
        c< JOB_CREATED {h1}
        d> SUBMIT_JOB_LOW_BG {f}|{u}|2
        d< JOB_CREATED {h1}
        d> SUBMIT_JOB_EPOCH {f}|{u}|{now+1000}|3
        d< JOB_CREATED {h1}
        d> SUBMIT_REDUCE_JOB_BACKGROUND {f}|{u}|r||4
        d< JOB_CREATED {h1}
        c= status {f}\t1\t0\t1
        w> GRAB_JOB_ALL
        w< JOB_ASSIGN_UNIQ {h1}|{f}|{u}|1
        w> WORK_COMPLETE {h1}|
        w< nothing
        c< nothing
        d< nothing",
    ),
    both(
        "foreground joins background",
        r"
        w> CAN_DO {f}
        c> SUBMIT_JOB_BG {f}|{u}|1
        c< JOB_CREATED {h1}
        d> SUBMIT_JOB {f}|{u}|2
        d< JOB_CREATED {h1}
        d> GET_STATUS_UNIQUE {u}
        d< STATUS_RES_UNIQUE {u}|1|0|0|0|1
        w> GRAB_JOB
        w< JOB_ASSIGN {h1}|{f}|1
        w> WORK_COMPLETE {h1}|r
        d< WORK_COMPLETE {h1}|r
        c< nothing",
    ),
    both(
        "background joins foreground",
        r"
        w> CAN_DO {f}
        c> SUBMIT_JOB {f}|{u}|1
        c< JOB_CREATED {h1}
        d> SUBMIT_JOB_BG {f}|{u}|2
        d< JOB_CREATED {h1}
        w> GRAB_JOB
        w< JOB_ASSIGN {h1}|{f}|1
        w> WORK_COMPLETE {h1}|r
        c< WORK_COMPLETE {h1}|r
        d< nothing",
    ),
    ours(
        "foreground clients that leave don't kill background work",
        "1.1.20 discards it",
        r"
        w> CAN_DO {f}
        c> SUBMIT_JOB_BG {f}|{u}|1
        c< JOB_CREATED {h1}
        d> SUBMIT_JOB {f}|{u}|2
        d< JOB_CREATED {h1}
        d> close
        c> GET_STATUS_UNIQUE {u}
        c< STATUS_RES_UNIQUE {u}|1|0|0|0|{*}
        c= show_jobs {h1}\t0\t0\t1
        w> GRAB_JOB
        w< JOB_ASSIGN {h1}|{f}|1",
    ),
    ours(
        "background interest keeps a foreground job alive",
        "1.1.20 discards it",
        r"
        w> CAN_DO {f}
        c> SUBMIT_JOB_BG {g}|{u}|0
        c< JOB_CREATED {h1}
        d> SUBMIT_JOB {f}|{u}|1
        d< JOB_CREATED {h2}
        e> SUBMIT_JOB {f}||2
        e< JOB_CREATED {h3}
        c> SUBMIT_JOB_BG {f}|{u}|3
        c< JOB_CREATED {h2}
        d> close
        e> close
        c~ status {f}\t1\t0\t1
        c= show_jobs {h2}\t0\t0\t1
        w> GRAB_JOB
        w< JOB_ASSIGN {h2}|{f}|1",
    ),
    both(
        "an empty unique never joins",
        r"
        w> CAN_DO {f}
        c> SUBMIT_JOB {f}||same
        c< JOB_CREATED {h1}
        c> SUBMIT_JOB {f}||same
        c< JOB_CREATED {h2}
        c> SUBMIT_JOB_BG {f}||same
        c< JOB_CREATED {h3}
        c= status {f}\t3\t0\t1",
    ),
    both(
        "the unique - joins by payload",
        r"
        w> CAN_DO {f}
        c> SUBMIT_JOB {f}|-|same
        c< JOB_CREATED {h1}
        c> SUBMIT_JOB {f}|-|other
        c< JOB_CREATED {h2}
        c> SUBMIT_JOB {f}|-|same
        c< JOB_CREATED {h1}
        c> SUBMIT_JOB_BG {f}|-|same
        c< JOB_CREATED {h1}
        c> SUBMIT_JOB {f}||same
        c< JOB_CREATED {h3}
        c> SUBMIT_JOB {g}|-|same
        c< JOB_CREATED {h4}
        w> GRAB_JOB_UNIQ
        w< JOB_ASSIGN_UNIQ {h1}|{f}|-|same
        c> SUBMIT_JOB {f}|-|same
        c< JOB_CREATED {h1}",
    ),
    both(
        "the unique - with nothing to compare never joins",
        r"
        c> SUBMIT_JOB {f}|-|
        c< JOB_CREATED {h1}
        c> SUBMIT_JOB {f}|-|
        c< JOB_CREATED {h2}
        c= status {f}\t2\t0\t0",
    ),
    both(
        "a unique is one of its function",
        r"
        c> SUBMIT_JOB {f}|{u}|
        c< JOB_CREATED {h1}
        c> SUBMIT_JOB {g}|{u}|
        c< JOB_CREATED {h2}
        c> SUBMIT_JOB {f}|{u}x|
        c< JOB_CREATED {h3}
        c> SUBMIT_JOB {f}|#|same
        c< JOB_CREATED {h4}
        c> SUBMIT_JOB {f}|#|other
        c< JOB_CREATED {h4}",
    ),
    both(
        "a unique of 63 bytes joins",
        r"
        w> CAN_DO {f}
        c> SUBMIT_JOB {f}|{x*63}|
        c< JOB_CREATED {h1}
        c> SUBMIT_JOB {f}|{x*63}|
        c< JOB_CREATED {h1}
        w> GRAB_JOB_UNIQ
        w< JOB_ASSIGN_UNIQ {h1}|{f}|{x*63}|",
    ),
    ours(
        "a unique of 64 bytes is whole, and joins",
        "1.1.20 cuts it and puts a NUL before the payload",
        r"
        w> CAN_DO {f}
        c> SUBMIT_JOB {f}|{x*64}|p
        c< JOB_CREATED {h1}
        c> SUBMIT_JOB {f}|{x*64}|q
        c< JOB_CREATED {h1}
        w> GRAB_JOB_UNIQ
        w< JOB_ASSIGN_UNIQ {h1}|{f}|{x*64}|p",
    ),
    both(
        "reduce jobs join too",
        r"
        w> CAN_DO {f}
        c> SUBMIT_REDUCE_JOB {f}|{u}|r||1
        c< JOB_CREATED {h1}
        c> SUBMIT_REDUCE_JOB {f}|{u}|s||2
        c< JOB_CREATED {h1}
        c> SUBMIT_JOB {f}|{u}|3
        c< JOB_CREATED {h1}
        w> GRAB_JOB_ALL
        w< JOB_ASSIGN_ALL {h1}|{f}|{u}|r|1",
    ),
    both(
        "joining is exempt from a full queue",
        r"
        c> 'maxqueue {f} 1\n'
        c< 'OK\r\n'
        c> SUBMIT_JOB {f}|{u}|
        c< JOB_CREATED {h1}
        c> 'maxqueue {f} 1\n'
        c< 'OK\r\n'
        c> SUBMIT_JOB {f}|{v}|
        c< ERROR QUEUE_ERROR|Job queue is full
        c> SUBMIT_JOB {f}|{u}|
        c< JOB_CREATED {h1}
        c> SUBMIT_JOB_BG {f}|{u}|
        c< JOB_CREATED {h1}",
    ),
    ours(
        "nobody joins a job that was given up",
        "1.1.20 joins it and never runs it",
        r"
        w> CAN_DO {f}
        c> SUBMIT_JOB {f}|{u}|1
        c< JOB_CREATED {h1}
        d> connect
        c> close
        d~ status {f}\t0\t0\t1
        d> SUBMIT_JOB {f}|{u}|2
        d< JOB_CREATED {h2}
        w> GRAB_JOB
        w< JOB_ASSIGN {h2}|{f}|2
        w> WORK_COMPLETE {h2}|
        d< WORK_COMPLETE {h2}|",
    ),
    both(
        "when the job ends the key is free",
        r"
        w> CAN_DO {f}
        c> SUBMIT_JOB_BG {f}|{u}|1
        c< JOB_CREATED {h1}
        w> GRAB_JOB
        w< JOB_ASSIGN {h1}|{f}|1
        c> SUBMIT_JOB_BG {f}|{u}|2
        c< JOB_CREATED {h1}
        w> WORK_FAIL {h1}
        c> SUBMIT_JOB_BG {f}|{u}|3
        c< JOB_CREATED {h2}
        w> GRAB_JOB
        w< JOB_ASSIGN {h2}|{f}|3",
    ),
    both(
        "a requeued job keeps its key",
        r"
        w> CAN_DO {f}
        c> SUBMIT_JOB_BG {f}|{u}|1
        c< JOB_CREATED {h1}
        w> GRAB_JOB
        w< JOB_ASSIGN {h1}|{f}|1
        w> CANT_DO {f}
        d> SUBMIT_JOB {f}|{u}|2
        d< JOB_CREATED {h1}
        w> CAN_DO {f}
        w> GRAB_JOB
        w< JOB_ASSIGN {h1}|{f}|1
        w> WORK_COMPLETE {h1}|r
        d< WORK_COMPLETE {h1}|r",
    ),
];
