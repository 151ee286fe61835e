//! What the server tells of a job by its handle or its unique key.

use super::{Transcript, both, ours};

pub(super) const ALL: &[Transcript] = &[
    both(
        "GET_STATUS through a job's life",
        r"
        w> CAN_DO {f}
        c> SUBMIT_JOB {f}|{u}|
        c< JOB_CREATED {h1}
        d> GET_STATUS {h1}
        d< STATUS_RES {h1}|1|0|0|0
        w> GRAB_JOB
        w< JOB_ASSIGN {h1}|{f}|
        d> GET_STATUS {h1}
        d< STATUS_RES {h1}|1|1|0|0
        w> WORK_STATUS {h1}|50|100
        c< WORK_STATUS {h1}|50|100
        d> GET_STATUS {h1}
        d< STATUS_RES {h1}|1|1|50|100
        w> WORK_COMPLETE {h1}|
        c< WORK_COMPLETE {h1}|
        d> GET_STATUS {h1}
        d< STATUS_RES {h1}|0|0|0|0",
    ),
    both(
        "GET_STATUS of handles that never were",
        r"
        c> GET_STATUS H:nowhere:1
        c< STATUS_RES H:nowhere:1|0|0|0|0
        c> GET_STATUS nonsense
        c< STATUS_RES nonsense|0|0|0|0
        c> GET_STATUS
        c< STATUS_RES |0|0|0|0
        c> GET_STATUS {x*63}
        c< STATUS_RES {x*63}|0|0|0|0
        c< nothing",
    ),
    ours(
        "GET_STATUS of an overlong handle: unknown",
        "1.1.20 doesn't answer",
        r"
        c> GET_STATUS {x*64}
        c< STATUS_RES {x*64}|0|0|0|0
        c> GET_STATUS {x*1000}
        c< STATUS_RES {x*1000}|0|0|0|0
        c< nothing",
    ),
    both(
        "GET_STATUS with a NUL behind the handle",
        r"
        c> SUBMIT_JOB {f}||
        c< JOB_CREATED {h1}
        c> GET_STATUS {h1}|
        c< STATUS_RES {h1}|1|0|0|0",
    ),
    both(
        "GET_STATUS_UNIQUE through a job's life",
        r"
        w> CAN_DO {f}
        d> GET_STATUS_UNIQUE {u}
        d< STATUS_RES_UNIQUE {u}|0|0|0|0|0
        c> SUBMIT_JOB {f}|{u}|
        c< JOB_CREATED {h1}
        d> GET_STATUS_UNIQUE {u}
        d< STATUS_RES_UNIQUE {u}|1|0|0|0|1
        d> SUBMIT_JOB {f}|{u}|
        d< JOB_CREATED {h1}
        w> GRAB_JOB
        w< JOB_ASSIGN {h1}|{f}|
        w> WORK_STATUS {h1}|2|3
        c< WORK_STATUS {h1}|2|3
        d< WORK_STATUS {h1}|2|3
        d> GET_STATUS_UNIQUE {u}
        d< STATUS_RES_UNIQUE {u}|1|1|2|3|2
        w> WORK_COMPLETE {h1}|
        c< WORK_COMPLETE {h1}|
        d< WORK_COMPLETE {h1}|
        d> GET_STATUS_UNIQUE {u}
        d< STATUS_RES_UNIQUE {u}|0|0|0|0|0",
    ),
    both(
        "GET_STATUS_UNIQUE of background work has no clients",
        r"
        c> SUBMIT_JOB_BG {f}|{u}|
        c< JOB_CREATED {h1}
        c> GET_STATUS_UNIQUE {u}
        c< STATUS_RES_UNIQUE {u}|1|0|0|0|0
        c> GET_STATUS_UNIQUE {v}
        c< STATUS_RES_UNIQUE {v}|0|0|0|0|0",
    ),
    both(
        "GET_STATUS_UNIQUE of the empty unique",
        r"
        c> SUBMIT_JOB_BG {f}||
        c< JOB_CREATED {h1}
        c> GET_STATUS_UNIQUE
        c< STATUS_RES_UNIQUE |0|0|0|0|0",
    ),
    both(
        "GET_STATUS_UNIQUE of a key of 63 bytes",
        r"
        c> GET_STATUS_UNIQUE {y*63}
        c< STATUS_RES_UNIQUE {y*63}|0|0|0|0|0",
    ),
    both(
        "requeued jobs have no progress",
        r"
        w> CAN_DO {f}
        c> SUBMIT_JOB_BG {f}|{u}|
        c< JOB_CREATED {h1}
        w> GRAB_JOB
        w< JOB_ASSIGN {h1}|{f}|
        w> WORK_STATUS {h1}|50|100
        w> CANT_DO {f}
        c> GET_STATUS {h1}
        c< STATUS_RES {h1}|1|0|0|0
        c> GET_STATUS_UNIQUE {u}
        c< STATUS_RES_UNIQUE {u}|1|0|0|0|0",
    ),
];
