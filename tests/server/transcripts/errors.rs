//! Every ERROR packet; none of them ends the connection.

use super::{Transcript, both, ours};

pub(super) const ALL: &[Transcript] = &[
    both(
        "packets that only the server may send",
        r"
        c> NOOP
        c< ERROR INVALID_COMMAND|Command not expected
        c> JOB_CREATED H:x:1
        c< ERROR INVALID_COMMAND|Command not expected
        c> NO_JOB
        c< ERROR INVALID_COMMAND|Command not expected
        c> JOB_ASSIGN h|f|
        c< ERROR INVALID_COMMAND|Command not expected
        c> ECHO_RES x
        c< ERROR INVALID_COMMAND|Command not expected
        c> ERROR code|text
        c< ERROR INVALID_COMMAND|Command not expected
        c> STATUS_RES h|1|1|1|1
        c< ERROR INVALID_COMMAND|Command not expected
        c> OPTION_RES exceptions
        c< ERROR INVALID_COMMAND|Command not expected
        c> JOB_ASSIGN_UNIQ h|f|u|
        c< ERROR INVALID_COMMAND|Command not expected
        c> JOB_ASSIGN_ALL h|f|u|r|
        c< ERROR INVALID_COMMAND|Command not expected
        c> STATUS_RES_UNIQUE u|1|1|1|1|1
        c< ERROR INVALID_COMMAND|Command not expected
        c< nothing",
    ),
    both(
        "packets that nobody may send",
        r"
        c> #5
        c< ERROR INVALID_COMMAND|Command not expected
        c> ALL_YOURS
        c< ERROR INVALID_COMMAND|Command not expected
        c> SUBMIT_JOB_SCHED {f}|u|0|0|0|0|0|payload
        c< ERROR INVALID_COMMAND|Command not expected
        c= status -{f}\t{*}
        c< nothing",
    ),
    both(
        "the magic of a response",
        r"
        c> RES ECHO_REQ x
        c< ERROR INVALID_MAGIC|Request magic expected
        c> RES SUBMIT_JOB {f}||x
        c< ERROR INVALID_MAGIC|Request magic expected
        c> RES NOOP
        c< ERROR INVALID_MAGIC|Request magic expected
        c> RES CAN_DO {f}
        c< ERROR INVALID_MAGIC|Request magic expected
        c= status -{f}\t{*}
        c> ECHO_REQ still here
        c< ECHO_RES still here",
    ),
    both(
        "a unique of 65 bytes in every submission",
        r"
        c> SUBMIT_JOB {f}|{x*65}|
        c< ERROR ARGUMENT_TOO_LARGE|Unique value too large
        c> SUBMIT_JOB_BG {f}|{x*65}|
        c< ERROR ARGUMENT_TOO_LARGE|Unique value too large
        c> SUBMIT_JOB_HIGH {f}|{x*65}|
        c< ERROR ARGUMENT_TOO_LARGE|Unique value too large
        c> SUBMIT_JOB_HIGH_BG {f}|{x*65}|
        c< ERROR ARGUMENT_TOO_LARGE|Unique value too large
        c> SUBMIT_JOB_LOW {f}|{x*65}|
        c< ERROR ARGUMENT_TOO_LARGE|Unique value too large
        c> SUBMIT_JOB_LOW_BG {f}|{x*65}|
        c< ERROR ARGUMENT_TOO_LARGE|Unique value too large
        c> SUBMIT_JOB_EPOCH {f}|{x*65}|1|
        c< ERROR ARGUMENT_TOO_LARGE|Unique value too large
        c= status -{f}\t1{*}
        c< nothing",
    ),
    both(
        "a reducer of 65 bytes",
        r"
        c> SUBMIT_REDUCE_JOB {f}||{x*65}||
        c< ERROR ARGUMENT_TOO_LARGE|Unique value too large
        c> SUBMIT_REDUCE_JOB_BACKGROUND {f}||{x*65}||
        c< ERROR ARGUMENT_TOO_LARGE|Unique value too large
        c> SUBMIT_REDUCE_JOB {f}||{x*64}||
        c< JOB_CREATED {h1}
        w> CAN_DO {f}
        w> GRAB_JOB_ALL
        w< JOB_ASSIGN_ALL {h1}|{f}||{x*64}|",
    ),
    ours(
        "a reduce job's unique of 65 bytes",
        "1.1.20 reads beyond its buffer",
        r"
        c> SUBMIT_REDUCE_JOB {f}|{x*65}|r||
        c< ERROR ARGUMENT_TOO_LARGE|Unique value too large
        c> SUBMIT_REDUCE_JOB_BACKGROUND {f}|{x*65}|r||
        c< ERROR ARGUMENT_TOO_LARGE|Unique value too large",
    ),
    both(
        "WORK_FAIL with a handle of 64 bytes",
        r"
        c> WORK_FAIL {x*64}
        c< ERROR ARGUMENT_TOO_LARGE|Error occurred due to {*}
        c> WORK_FAIL {x*63}
        c< ERROR JOB_NOT_FOUND|Job given in work result not found
        c< nothing",
    ),
    both(
        "the whole text about a handle of 64 bytes",
        r"
        c> WORK_FAIL {x*1000}
        c< ERROR ARGUMENT_TOO_LARGE|Error occurred due to GEARMAND_JOB_HANDLE_SIZE being too small from snprintf
        c< nothing",
    ),
    both(
        "overlong handles elsewhere are just unknown",
        r"
        c> WORK_COMPLETE {x*64}|
        c< ERROR JOB_NOT_FOUND|Job given in work result not found
        c> WORK_DATA {x*200}|
        c< ERROR JOB_NOT_FOUND|Job does not exist on server
        c> WORK_STATUS {x*200}|1|2
        c< ERROR JOB_NOT_FOUND|Job given in work result not found
        c> WORK_EXCEPTION {x*200}|
        c< ERROR JOB_NOT_FOUND|An exception was received for a job that does not exist
        c< nothing",
    ),
    both(
        "an error is no end: a submission behind it works",
        r"
        c> ALL_YOURS
        c> OPTION_REQ x
        c> WORK_FAIL x
        c> SUBMIT_JOB {f}||
        c< ERROR INVALID_COMMAND|Command not expected
        c< ERROR UNKNOWN_OPTION|Server does not recognize given option
        c< ERROR JOB_NOT_FOUND|Job given in work result not found
        c< JOB_CREATED {h1}",
    ),
];
