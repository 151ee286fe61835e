//! Bytes that no Gearman peer sends, and odd ones that are fine.

use super::{Transcript, both, ours};

pub(super) const ALL: &[Transcript] = &[
    both(
        "type 0",
        r"
        c> #0
        c< close",
    ),
    both(
        "type 43",
        r"
        c> #43
        c< close",
    ),
    both(
        "type 1000000 with a body",
        r"
        c> #1000000 xyz
        c< close",
    ),
    ours(
        "type 4294967295 with a body",
        "1.1.20 takes it for a negative number and crashes",
        r"
        c> #4294967295 xyz
        c< close",
    ),
    both(
        "magic that is none",
        r"
        c> '\0REX\0\0\0\x10\0\0\0\0'
        c< close",
    ),
    both(
        "magic of four NULs",
        r"
        c> '\0\0\0\0\0\0\0\0\0\0\0\0'
        c< close",
    ),
    both(
        "one bad connection leaves the others alone",
        r"
        d> SUBMIT_JOB {f}||
        d< JOB_CREATED {h1}
        c> #77 x
        c< close
        d> GET_STATUS {h1}
        d< STATUS_RES {h1}|1|0|0|0",
    ),
    both(
        "six words",
        r"
        c> 'a b c d e f\n'
        c< close",
    ),
    both(
        "five words and a space",
        r"
        c> 'a b c d e \n'
        c< close",
    ),
    both(
        "a line without an end",
        r"
        c> '{x*8200}'
        c< close",
    ),
    both(
        "a line longer than the longest",
        r"
        c> 'status {x*9000}\n'
        c< close",
    ),
    both(
        "a long line that is short enough",
        r"
        c> 'getpid {x*8000}\n'
        c< 'OK {pid}\n'",
    ),
    ours(
        "too few NULs in a submission",
        "1.1.20 searches behind the packet",
        r"
        c> SUBMIT_JOB {f}|unique
        c< close",
    ),
    ours(
        "no NUL in a submission",
        "1.1.20 searches behind the packet",
        r"
        c> SUBMIT_JOB_BG {f}
        c< close
        d~ status -{f}\t{*}",
    ),
    ours(
        "too few NULs in WORK_STATUS",
        "1.1.20 searches behind the packet",
        r"
        c> WORK_STATUS handle|1
        c< close",
    ),
    ours(
        "too few NULs in a CAN_DO_TIMEOUT",
        "1.1.20 searches behind the packet",
        r"
        c> CAN_DO_TIMEOUT {f}
        c< close",
    ),
    ours(
        "an empty body where arguments belong",
        "1.1.20 searches behind the packet",
        r"
        c> WORK_COMPLETE
        c< close",
    ),
    ours(
        "a reduce job with three arguments",
        "1.1.20 searches behind the packet",
        r"
        c> SUBMIT_REDUCE_JOB {f}|u|r|payload
        c< close",
    ),
    both(
        "a body where none belongs is ignored",
        r"
        w> CAN_DO {f}
        w> GRAB_JOB body
        w< NO_JOB
        w> GRAB_JOB_UNIQ |
        w< NO_JOB
        w> GRAB_JOB_ALL a|b
        w< NO_JOB
        w> PRE_SLEEP zzz
        c> SUBMIT_JOB_BG {f}||
        c< JOB_CREATED {h1}
        w< NOOP
        w> RESET_ABILITIES body
        w> GRAB_JOB
        w< NO_JOB",
    ),
    both(
        "a packet in parts",
        r"
        c>> '\0'
        d> ECHO_REQ 1
        d< ECHO_RES 1
        c>> 'REQ\0\0\0\x10'
        d> ECHO_REQ 2
        d< ECHO_RES 2
        c>> '\0\0\0\x04ab'
        d> ECHO_REQ 3
        d< ECHO_RES 3
        c>> 'cdget'
        c< ECHO_RES abcd
        c> 'pid\n'
        c< 'OK {pid}\n'",
    ),
    both(
        "a packet that its connection doesn't live to see",
        r"
        c>> '\0REQ\0\0\0\x07\0\0\0\x64{f}'
        c> close
        d> ECHO_REQ x
        d< ECHO_RES x
        d= status -{f}\t{*}",
    ),
    ours(
        "half a connection still gets its answers",
        "1.1.20 takes it for the end",
        r"
        c>> '\0REQ\0\0\0\x10\0\0\0\x02higetpid\n'
        c> half-close
        c< ECHO_RES hi
        c< 'OK {pid}\n'
        c< close",
    ),
    both(
        "half a connection is closed by the server",
        r"
        c> connect
        c> half-close
        c< close",
    ),
    both(
        "a body of 4 GiB that never comes takes nothing",
        r"
        c>> '\0REQ\0\0\0\x10\x00\x10\0\0x'
        c> close
        d> ECHO_REQ x
        d< ECHO_RES x",
    ),
    both(
        "a function's name beyond the receive buffer",
        r"
        w> CAN_DO {x*9000}
        w< close
        c> SUBMIT_JOB {x*9000}||payload
        c< close
        d> ECHO_REQ x
        d< ECHO_RES x",
    ),
    both(
        "a function's name of 500 bytes",
        r"
        w> CAN_DO {f}{y*500}
        c> SUBMIT_JOB {f}{y*500}|{u}|p
        c< JOB_CREATED {h1}
        w> GRAB_JOB_UNIQ
        w< JOB_ASSIGN_UNIQ {h1}|{f}{y*500}|{u}|p
        c= status {f}{y*500}\t1\t1\t1",
    ),
    both(
        "a function without a name",
        r"
        w> CAN_DO
        c> SUBMIT_JOB ||p
        c< JOB_CREATED {h1}
        w> GRAB_JOB
        w< JOB_ASSIGN {h1}||p
        c= status \t1\t1\t1
        w> WORK_COMPLETE {h1}|
        c< WORK_COMPLETE {h1}|",
    ),
    ours(
        "the longest line, to the byte",
        "1.1.20 counts the line end too",
        r"
        c> 'getpid {x*8185}\n'
        c< 'OK {pid}\n'",
    ),
    ours(
        "too few NULs count before the magic of a response",
        "1.1.20 searches behind the packet",
        r"
        c> RES SUBMIT_JOB {f}
        c< close",
    ),
    both(
        "what stands before bad bytes is answered",
        r"
        c>> '\0REQ\0\0\0\x10\0\0\0\x02hi'
        c< ECHO_RES hi
        c> '\0BAD\0\0\0\x10\0\0\0\0'
        c< close",
    ),
    both(
        "what stands behind bad bytes isn't read",
        r"
        c> '\0BAD\0\0\0\x10\0\0\0\0\0REQ\0\0\0\x01\0\0\0\x06{f}'
        c< close
        d= status -{f}\t{*}",
    ),
];
