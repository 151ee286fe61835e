//! Every packet that hands in a job, every packet that a worker gets it by, and their order.

use super::{Transcript, both, ours};

pub(super) const ALL: &[Transcript] = &[
    both(
        "SUBMIT_JOB and its result",
        r"
        w> CAN_DO {f}
        c> SUBMIT_JOB {f}|{u}|payload
        c< JOB_CREATED {h1}
        w> GRAB_JOB
        w< JOB_ASSIGN {h1}|{f}|payload
        w> WORK_COMPLETE {h1}|result
        c< WORK_COMPLETE {h1}|result
        w> GRAB_JOB
        w< NO_JOB
        c< nothing",
    ),
    both(
        "handles count up",
        r"
        c> SUBMIT_JOB_BG {f}||
        c< JOB_CREATED {h1}
        c> SUBMIT_JOB_BG {f}||
        c< JOB_CREATED {h2}
        c> SUBMIT_JOB_BG {g}||
        c< JOB_CREATED {h3}
        c= status {f}\t2\t0\t0
        c= status {g}\t1\t0\t0",
    ),
    both(
        "SUBMIT_JOB_HIGH and SUBMIT_JOB_LOW are foreground",
        r"
        w> CAN_DO {f}
        c> SUBMIT_JOB_LOW {f}||low
        c< JOB_CREATED {h1}
        c> SUBMIT_JOB_HIGH {f}||high
        c< JOB_CREATED {h2}
        w> GRAB_JOB
        w< JOB_ASSIGN {h2}|{f}|high
        w> WORK_COMPLETE {h2}|
        c< WORK_COMPLETE {h2}|
        w> GRAB_JOB
        w< JOB_ASSIGN {h1}|{f}|low
        w> WORK_FAIL {h1}
        c< WORK_FAIL {h1}",
    ),
    both(
        "background submissions get no results",
        r"
        w> CAN_DO {f}
        c> SUBMIT_JOB_BG {f}||normal
        c< JOB_CREATED {h1}
        c> SUBMIT_JOB_HIGH_BG {f}||high
        c< JOB_CREATED {h2}
        c> SUBMIT_JOB_LOW_BG {f}||low
        c< JOB_CREATED {h3}
        w> GRAB_JOB
        w< JOB_ASSIGN {h2}|{f}|high
        w> WORK_DATA {h2}|data
        w> WORK_WARNING {h2}|warning
        w> WORK_STATUS {h2}|1|2
        w> WORK_COMPLETE {h2}|result
        w> GRAB_JOB
        w< JOB_ASSIGN {h1}|{f}|normal
        w> WORK_FAIL {h1}
        w> GRAB_JOB
        w< JOB_ASSIGN {h3}|{f}|low
        w> WORK_EXCEPTION {h3}|exception
        w< nothing
        c< nothing",
    ),
    both(
        "first in, first out within a priority",
        r"
        w> CAN_DO {f}
        c> SUBMIT_JOB_BG {f}||1
        c< JOB_CREATED {h1}
        d> SUBMIT_JOB {f}||2
        d< JOB_CREATED {h2}
        c> SUBMIT_JOB_BG {f}||3
        c< JOB_CREATED {h3}
        w> GRAB_JOB
        w< JOB_ASSIGN {h1}|{f}|1
        w> GRAB_JOB
        w< JOB_ASSIGN {h2}|{f}|2
        w> GRAB_JOB
        w< JOB_ASSIGN {h3}|{f}|3",
    ),
    both(
        "all six at once, most urgent first",
        r"
        w> CAN_DO {f}
        c> SUBMIT_JOB_LOW {f}||1
        c< JOB_CREATED {h1}
        c> SUBMIT_JOB_LOW_BG {f}||2
        c< JOB_CREATED {h2}
        c> SUBMIT_JOB {f}||3
        c< JOB_CREATED {h3}
        c> SUBMIT_JOB_BG {f}||4
        c< JOB_CREATED {h4}
        c> SUBMIT_JOB_HIGH {f}||5
        c< JOB_CREATED {h5}
        c> SUBMIT_JOB_HIGH_BG {f}||6
        c< JOB_CREATED {h6}
        c= prioritystatus {f}\t2\t2\t2\t1
        w> GRAB_JOB
        w< JOB_ASSIGN {h5}|{f}|5
        w> GRAB_JOB
        w< JOB_ASSIGN {h6}|{f}|6
        w> GRAB_JOB
        w< JOB_ASSIGN {h3}|{f}|3
        w> GRAB_JOB
        w< JOB_ASSIGN {h4}|{f}|4
        w> GRAB_JOB
        w< JOB_ASSIGN {h1}|{f}|1
        w> GRAB_JOB
        w< JOB_ASSIGN {h2}|{f}|2
        w> GRAB_JOB
        w< NO_JOB",
    ),
    ours(
        "priority is global over a worker's functions",
        "1.1.20 drains one function before the next",
        r"
        w> CAN_DO {f}
        w> CAN_DO {g}
        c> SUBMIT_JOB_BG {f}||1
        c< JOB_CREATED {h1}
        c> SUBMIT_JOB_LOW_BG {g}||2
        c< JOB_CREATED {h2}
        c> SUBMIT_JOB_HIGH_BG {g}||3
        c< JOB_CREATED {h3}
        c> SUBMIT_JOB_HIGH_BG {f}||4
        c< JOB_CREATED {h4}
        c> SUBMIT_JOB_HIGH_BG {g}||5
        c< JOB_CREATED {h5}
        w> GRAB_JOB
        w< JOB_ASSIGN {h3}|{g}|3
        w> GRAB_JOB
        w< JOB_ASSIGN {h4}|{f}|4
        w> GRAB_JOB
        w< JOB_ASSIGN {h5}|{g}|5
        w> GRAB_JOB
        w< JOB_ASSIGN {h1}|{f}|1
        w> GRAB_JOB
        w< JOB_ASSIGN {h2}|{g}|2",
    ),
    ours(
        "functions take turns, the last registered first",
        "1.1.20 drains one function before the next",
        r"
        w> CAN_DO {f}
        w> CAN_DO {g}
        w> CAN_DO {k}
        c> SUBMIT_JOB_BG {f}||1
        c< JOB_CREATED {h1}
        c> SUBMIT_JOB_BG {f}||2
        c< JOB_CREATED {h2}
        c> SUBMIT_JOB_BG {g}||3
        c< JOB_CREATED {h3}
        c> SUBMIT_JOB_BG {g}||4
        c< JOB_CREATED {h4}
        c> SUBMIT_JOB_BG {k}||5
        c< JOB_CREATED {h5}
        w> GRAB_JOB
        w< JOB_ASSIGN {h5}|{k}|5
        w> GRAB_JOB
        w< JOB_ASSIGN {h3}|{g}|3
        w> GRAB_JOB
        w< JOB_ASSIGN {h1}|{f}|1
        w> GRAB_JOB
        w< JOB_ASSIGN {h4}|{g}|4
        w> GRAB_JOB
        w< JOB_ASSIGN {h2}|{f}|2
        w> GRAB_JOB
        w< NO_JOB",
    ),
    ours(
        "functions take turns when the jobs were there first",
        "1.1.20 drains one function before the next",
        r"
        c> SUBMIT_JOB_BG {f}||1
        c< JOB_CREATED {h1}
        c> SUBMIT_JOB_BG {f}||2
        c< JOB_CREATED {h2}
        c> SUBMIT_JOB_BG {g}||3
        c< JOB_CREATED {h3}
        c> SUBMIT_JOB_BG {g}||4
        c< JOB_CREATED {h4}
        w> CAN_DO {f}
        w> CAN_DO {g}
        w> GRAB_JOB
        w< JOB_ASSIGN {h3}|{g}|3
        w> GRAB_JOB
        w< JOB_ASSIGN {h1}|{f}|1
        w> GRAB_JOB
        w< JOB_ASSIGN {h4}|{g}|4
        w> GRAB_JOB
        w< JOB_ASSIGN {h2}|{f}|2
        w> GRAB_JOB
        w< NO_JOB",
    ),
    both(
        "functions take turns with --round-robin",
        r"
        w> CAN_DO {g}
        w> CAN_DO {f}
        c> SUBMIT_JOB_BG {f}||1
        c< JOB_CREATED {h1}
        c> SUBMIT_JOB_BG {f}||2
        c< JOB_CREATED {h2}
        c> SUBMIT_JOB_BG {g}||3
        c< JOB_CREATED {h3}
        c> SUBMIT_JOB_BG {g}||4
        c< JOB_CREATED {h4}
        w> GRAB_JOB
        w< JOB_ASSIGN {h1}|{f}|1
        w> GRAB_JOB
        w< JOB_ASSIGN {h3}|{g}|3
        w> GRAB_JOB
        w< JOB_ASSIGN {h2}|{f}|2
        w> GRAB_JOB
        w< JOB_ASSIGN {h4}|{g}|4",
    )
    .with(&["--round-robin"]),
    both(
        "SUBMIT_JOB_EPOCH of the past, of now and of no number",
        r"
        w> CAN_DO {f}
        c> SUBMIT_JOB_EPOCH {f}|{u}|{now-100}|past
        c< JOB_CREATED {h1}
        c> SUBMIT_JOB_EPOCH {f}||0|zero
        c< JOB_CREATED {h2}
        c> SUBMIT_JOB_EPOCH {f}||-5|negative
        c< JOB_CREATED {h3}
        c> SUBMIT_JOB_EPOCH {f}|||empty
        c< JOB_CREATED {h4}
        c> SUBMIT_JOB_EPOCH {f}||12abc|garbage behind
        c< JOB_CREATED {h5}
        w> GRAB_JOB
        w< JOB_ASSIGN {h1}|{f}|past
        w> GRAB_JOB_UNIQ
        w< JOB_ASSIGN_UNIQ {h2}|{f}||zero
        w> GRAB_JOB
        w< JOB_ASSIGN {h3}|{f}|negative
        w> GRAB_JOB
        w< JOB_ASSIGN {h4}|{f}|empty
        w> GRAB_JOB
        w< JOB_ASSIGN {h5}|{f}|garbage behind
        w> WORK_COMPLETE {h5}|background
        w< nothing
        c< nothing",
    ),
    both(
        "SUBMIT_JOB_EPOCH of the future waits and counts",
        r"
        w> CAN_DO {f}
        c> SUBMIT_JOB_EPOCH {f}|{u}|{now+1000}|later
        c< JOB_CREATED {h1}
        c> SUBMIT_JOB_BG {f}||now
        c< JOB_CREATED {h2}
        c= status {f}\t2\t0\t1
        c= prioritystatus {f}\t0\t2\t0\t1
        c= show_jobs {h1}\t0\t0\t1
        c= show_unique_jobs {u}
        c> GET_STATUS {h1}
        c< STATUS_RES {h1}|1|0|0|0
        w> GRAB_JOB
        w< JOB_ASSIGN {h2}|{f}|now
        w> GRAB_JOB
        w< NO_JOB
        w> PRE_SLEEP
        w< nothing",
    ),
    ours(
        "SUBMIT_JOB_EPOCH wakes a sleeper by itself when it is due",
        "1.1.20 has no timer for it",
        r"
        w> CAN_DO {f}
        w> PRE_SLEEP
        c> SUBMIT_JOB_EPOCH {f}||{now+2}|later
        c< JOB_CREATED {h1}
        w< NOOP
        w> GRAB_JOB
        w< JOB_ASSIGN {h1}|{f}|later",
    ),
    ours(
        "SUBMIT_JOB_EPOCH out of range",
        "1.1.20 doesn't answer",
        r"
        c> SUBMIT_JOB_EPOCH {f}||9223372036854775808|x
        c< ERROR ARGUMENT_TOO_LARGE|Epoch out of range
        c< nothing",
    ),
    both(
        "SUBMIT_REDUCE_JOB is a foreground job with a reducer",
        r"
        w> CAN_DO {f}
        c> SUBMIT_REDUCE_JOB {f}|{u}|reducer|aggregator|payload
        c< JOB_CREATED {h1}
        w> GRAB_JOB_ALL
        w< JOB_ASSIGN_ALL {h1}|{f}|{u}|reducer|payload
        w> WORK_COMPLETE {h1}|result
        c< WORK_COMPLETE {h1}|result",
    ),
    both(
        "SUBMIT_REDUCE_JOB_BACKGROUND",
        r"
        w> CAN_DO {f}
        c> SUBMIT_REDUCE_JOB_BACKGROUND {f}|{u}|reducer||pay|load
        c< JOB_CREATED {h1}
        c= show_jobs {h1}\t0\t0\t1
        w> GRAB_JOB_ALL
        w< JOB_ASSIGN_ALL {h1}|{f}|{u}|reducer|pay|load
        w> WORK_COMPLETE {h1}|result
        w< nothing
        c< nothing",
    ),
    both(
        "SUBMIT_REDUCE_JOB grabbed by those who don't ask for a reducer",
        r"
        w> CAN_DO {f}
        c> SUBMIT_REDUCE_JOB {f}|{u}|reducer||one
        c< JOB_CREATED {h1}
        c> SUBMIT_REDUCE_JOB {f}|{v}|reducer||two
        c< JOB_CREATED {h2}
        c> SUBMIT_REDUCE_JOB {f}|{w}|||three
        c< JOB_CREATED {h3}
        w> GRAB_JOB
        w< JOB_ASSIGN {h1}|{f}|one
        w> GRAB_JOB_UNIQ
        w< JOB_ASSIGN_UNIQ {h2}|{f}|{v}|two
        w> GRAB_JOB_ALL
        w< JOB_ASSIGN_UNIQ {h3}|{f}|{w}|three",
    ),
    both(
        "payloads are opaque: NULs, line ends, empty",
        r"
        w> CAN_DO {f}
        c> SUBMIT_JOB {f}|{u}||\0REQ\n\r\xff\xfe|
        c< JOB_CREATED {h1}
        c> SUBMIT_JOB {f}||
        c< JOB_CREATED {h2}
        w> GRAB_JOB_UNIQ
        w< JOB_ASSIGN_UNIQ {h1}|{f}|{u}||\0REQ\n\r\xff\xfe|
        w> GRAB_JOB_UNIQ
        w< JOB_ASSIGN_UNIQ {h2}|{f}||
        w> WORK_COMPLETE {h1}||a|\n|
        c< WORK_COMPLETE {h1}||a|\n|
        w> WORK_COMPLETE {h2}|
        c< WORK_COMPLETE {h2}|",
    ),
    both(
        "payloads beyond every buffer",
        r"
        w> CAN_DO {f}
        c> SUBMIT_JOB {f}|{u}|{0123456789*300000}
        c< JOB_CREATED {h1}
        w> GRAB_JOB_ALL
        w< JOB_ASSIGN_UNIQ {h1}|{f}|{u}|{0123456789*300000}
        w> WORK_DATA {h1}|{d*70000}
        c< WORK_DATA {h1}|{d*70000}
        w> WORK_COMPLETE {h1}|{r*1000000}
        c< WORK_COMPLETE {h1}|{r*1000000}",
    ),
    both(
        "a function without a worker queues",
        r"
        c> SUBMIT_JOB {f}||
        c< JOB_CREATED {h1}
        c= status {f}\t1\t0\t0
        w> CAN_DO {g}
        w> GRAB_JOB
        w< NO_JOB
        w> CAN_DO {f}
        w< nothing
        w> GRAB_JOB
        w< JOB_ASSIGN {h1}|{f}|",
    ),
    both(
        "one connection may be client and worker",
        r"
        c> CAN_DO {f}
        c> SUBMIT_JOB {f}||self
        c< JOB_CREATED {h1}
        c> GRAB_JOB
        c< JOB_ASSIGN {h1}|{f}|self
        c> WORK_COMPLETE {h1}|done
        c< WORK_COMPLETE {h1}|done",
    ),
    both(
        "answers to pipelined submissions come in their order",
        r"
        c> SUBMIT_JOB {f}||1
        c> SUBMIT_JOB_BG {f}|{x*65}|2
        c> OPTION_REQ exceptions
        c> ECHO_REQ 3
        c> SUBMIT_JOB_HIGH {f}||4
        c< JOB_CREATED {h1}
        c< ERROR ARGUMENT_TOO_LARGE|Unique value too large
        c< OPTION_RES exceptions
        c< ECHO_RES 3
        c< JOB_CREATED {h2}",
    ),
    both(
        "names of functions are case-sensitive bytes",
        r"
        w> CAN_DO {f}
        c> SUBMIT_JOB {F}||
        c< JOB_CREATED {h1}
        w> GRAB_JOB
        w< NO_JOB
        w> CAN_DO {f} \xc3\xa9\xff
        c> SUBMIT_JOB {f} \xc3\xa9\xff||
        c< JOB_CREATED {h2}
        w> GRAB_JOB
        w< JOB_ASSIGN {h2}|{f} \xc3\xa9\xff|",
    ),
];
