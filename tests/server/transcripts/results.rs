//! What workers say of their jobs, and who hears it.

use super::{Transcript, both, ours};

pub(super) const ALL: &[Transcript] = &[
    both(
        "every packet about a job is passed on as it came",
        r"
        w> CAN_DO {f}
        c> SUBMIT_JOB {f}||
        c< JOB_CREATED {h1}
        w> GRAB_JOB
        w< JOB_ASSIGN {h1}|{f}|
        w> WORK_DATA {h1}|a|b
        c< WORK_DATA {h1}|a|b
        w> WORK_DATA {h1}|
        c< WORK_DATA {h1}|
        w> WORK_WARNING {h1}|careful
        c< WORK_WARNING {h1}|careful
        w> WORK_STATUS {h1}|3|10
        c< WORK_STATUS {h1}|3|10
        w> WORK_COMPLETE {h1}|done
        c< WORK_COMPLETE {h1}|done
        w< nothing",
    ),
    both(
        "WORK_FAIL ends a job",
        r"
        w> CAN_DO {f}
        c> SUBMIT_JOB {f}||
        c< JOB_CREATED {h1}
        w> GRAB_JOB
        w< JOB_ASSIGN {h1}|{f}|
        w> WORK_FAIL {h1}
        c< WORK_FAIL {h1}
        w> WORK_FAIL {h1}
        w< ERROR JOB_NOT_FOUND|Job given in work result not found
        c= status {f}\t0\t0\t1
        c< nothing",
    ),
    both(
        "WORK_STATUS is remembered, numbers or not",
        r"
        w> CAN_DO {f}
        c> SUBMIT_JOB_BG {f}||
        c< JOB_CREATED {h1}
        w> GRAB_JOB
        w< JOB_ASSIGN {h1}|{f}|
        c> GET_STATUS {h1}
        c< STATUS_RES {h1}|1|1|0|0
        w> WORK_STATUS {h1}|3|10
        c> GET_STATUS {h1}
        c< STATUS_RES {h1}|1|1|3|10
        w> WORK_STATUS {h1}| 7x|abc
        c> GET_STATUS {h1}
        c< STATUS_RES {h1}|1|1|7|0
        c< nothing",
    ),
    both(
        "WORK_STATUS passes on text that isn't a number",
        r"
        w> CAN_DO {f}
        c> SUBMIT_JOB {f}||
        c< JOB_CREATED {h1}
        w> GRAB_JOB
        w< JOB_ASSIGN {h1}|{f}|
        w> WORK_STATUS {h1}|a b|00100
        c< WORK_STATUS {h1}|a b|00100
        w> WORK_STATUS {h1}||
        c< WORK_STATUS {h1}||",
    ),
    both(
        "an exception goes to those who asked for it",
        r"
        w> CAN_DO {f}
        c> OPTION_REQ exceptions
        c< OPTION_RES exceptions
        c> SUBMIT_JOB {f}||
        c< JOB_CREATED {h1}
        w> GRAB_JOB
        w< JOB_ASSIGN {h1}|{f}|
        w> WORK_EXCEPTION {h1}|what|happened
        c< WORK_EXCEPTION {h1}|what|happened
        w> WORK_FAIL {h1}
        w< ERROR JOB_NOT_FOUND|Job given in work result not found
        c= status {f}\t0\t0\t1
        c< nothing",
    ),
    ours(
        "an exception is a failure to those who didn't ask",
        "1.1.20 sends the handle with a NUL behind it",
        r"
        w> CAN_DO {f}
        c> SUBMIT_JOB {f}||
        c< JOB_CREATED {h1}
        w> GRAB_JOB
        w< JOB_ASSIGN {h1}|{f}|
        w> WORK_EXCEPTION {h1}|what happened
        c< WORK_FAIL {h1}
        w> WORK_COMPLETE {h1}|
        w< ERROR JOB_NOT_FOUND|Job given in work result not found
        c< nothing",
    ),
    ours(
        "one job, one client with exceptions and one without",
        "1.1.20 sends the handle with a NUL behind it",
        r"
        w> CAN_DO {f}
        c> OPTION_REQ exceptions
        c< OPTION_RES exceptions
        c> SUBMIT_JOB {f}|{u}|
        c< JOB_CREATED {h1}
        d> SUBMIT_JOB {f}|{u}|
        d< JOB_CREATED {h1}
        w> GRAB_JOB
        w< JOB_ASSIGN {h1}|{f}|
        w> WORK_EXCEPTION {h1}|oh
        c< WORK_EXCEPTION {h1}|oh
        d< WORK_FAIL {h1}",
    ),
    both(
        "--exceptions sends exceptions to all",
        r"
        w> CAN_DO {f}
        c> SUBMIT_JOB {f}||
        c< JOB_CREATED {h1}
        w> GRAB_JOB
        w< JOB_ASSIGN {h1}|{f}|
        w> WORK_EXCEPTION {h1}|what happened
        c< WORK_EXCEPTION {h1}|what happened",
    )
    .with(&["--exceptions"]),
    both(
        "OPTION_REQ in any case, answered as it came",
        r"
        c> OPTION_REQ ExCePtIoNs
        c< OPTION_RES ExCePtIoNs
        c> OPTION_REQ EXCEPTIONS|
        c< OPTION_RES EXCEPTIONS|
        c> OPTION_REQ exception
        c< ERROR UNKNOWN_OPTION|Server does not recognize given option
        c> OPTION_REQ
        c< ERROR UNKNOWN_OPTION|Server does not recognize given option
        c> OPTION_REQ {x*100}
        c< ERROR UNKNOWN_OPTION|Server does not recognize given option
        c< nothing",
    ),
    both(
        "ECHO_REQ: text, nothing, any bytes, many",
        r"
        c> ECHO_REQ hello
        c< ECHO_RES hello
        c> ECHO_REQ
        c< ECHO_RES
        c> ECHO_REQ ||\x01\xff\n\r\0REQ|
        c< ECHO_RES ||\x01\xff\n\r\0REQ|
        c> ECHO_REQ {0123456789*10240}
        c< ECHO_RES {0123456789*10240}
        c< nothing",
    ),
    both(
        "only the worker that runs a job may speak of it",
        r"
        w> CAN_DO {f}
        x> CAN_DO {f}
        c> SUBMIT_JOB {f}||
        c< JOB_CREATED {h1}
        w> WORK_COMPLETE {h1}|
        w< ERROR JOB_NOT_FOUND|Job given in work result not found
        w> GRAB_JOB
        w< JOB_ASSIGN {h1}|{f}|
        x> WORK_DATA {h1}|
        x< ERROR JOB_NOT_FOUND|Job does not exist on server
        x> WORK_WARNING {h1}|
        x< ERROR JOB_NOT_FOUND|Job does not exist on server
        x> WORK_STATUS {h1}|1|2
        x< ERROR JOB_NOT_FOUND|Job given in work result not found
        x> WORK_COMPLETE {h1}|
        x< ERROR JOB_NOT_FOUND|Job given in work result not found
        x> WORK_FAIL {h1}
        x< ERROR JOB_NOT_FOUND|Job given in work result not found
        x> WORK_EXCEPTION {h1}|
        x< ERROR JOB_NOT_FOUND|An exception was received for a job that does not exist
        c> WORK_FAIL {h1}
        c< ERROR JOB_NOT_FOUND|Job given in work result not found
        c< nothing
        w> WORK_COMPLETE {h1}|mine
        c< WORK_COMPLETE {h1}|mine",
    ),
    both(
        "results of jobs that never were",
        r"
        w> WORK_DATA H:none:1|
        w< ERROR JOB_NOT_FOUND|Job does not exist on server
        w> WORK_WARNING |
        w< ERROR JOB_NOT_FOUND|Job does not exist on server
        w> WORK_STATUS x|1|2
        w< ERROR JOB_NOT_FOUND|Job given in work result not found
        w> WORK_COMPLETE H:none:4294967296|
        w< ERROR JOB_NOT_FOUND|Job given in work result not found
        w> WORK_FAIL
        w< ERROR JOB_NOT_FOUND|Job given in work result not found
        w> WORK_EXCEPTION H:none:99999999999999999999|
        w< ERROR JOB_NOT_FOUND|An exception was received for a job that does not exist
        w< nothing",
    ),
    both(
        "results reach each attached client",
        r"
        w> CAN_DO {f}
        c> SUBMIT_JOB {f}|{u}|1
        c< JOB_CREATED {h1}
        d> SUBMIT_JOB {f}|{u}|2
        d< JOB_CREATED {h1}
        w> GRAB_JOB
        w< JOB_ASSIGN {h1}|{f}|1
        w> WORK_DATA {h1}|a
        c< WORK_DATA {h1}|a
        d< WORK_DATA {h1}|a
        d> close
        c~ workers {*} - : {f}
        w> WORK_WARNING {h1}|b
        c< WORK_WARNING {h1}|b
        w> WORK_FAIL {h1}
        c< WORK_FAIL {h1}",
    ),
    both(
        "WORK_FAIL with a NUL behind the handle",
        r"
        w> CAN_DO {f}
        c> SUBMIT_JOB {f}||
        c< JOB_CREATED {h1}
        w> GRAB_JOB
        w< JOB_ASSIGN {h1}|{f}|
        w> WORK_FAIL {h1}|
        c< WORK_FAIL {h1}|
        c= status {f}\t0\t0\t1",
    ),
];
