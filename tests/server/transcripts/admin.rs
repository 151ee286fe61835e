//! The text protocol: every command, with the line end that each has.

use super::{Transcript, both, ours};

pub(super) const ALL: &[Transcript] = &[
    both(
        "getpid, in any case, with CR or without, with words behind",
        r"
        c> 'getpid\n'
        c< 'OK {pid}\n'
        c> 'GetPid\r\n'
        c< 'OK {pid}\n'
        c> 'getpid now please\n'
        c< 'OK {pid}\n'
        c< nothing",
    ),
    both(
        "version",
        r"
        c> 'version\n'
        c< 'OK {*}\n'
        c> 'VERSION\r\n'
        c< 'OK {*}\n'
        c< nothing",
    ),
    both(
        "verbose, the level of the server",
        r"
        c> 'verbose\n'
        c< 'OK {*}\n'
        c< nothing",
    ),
    ours(
        "verbose is NOTICE by default",
        "1.1.20 says ERROR or what it was built with",
        r"
        c> 'verbose\n'
        c< 'OK NOTICE\n'",
    ),
    both(
        "status",
        r"
        c> SUBMIT_JOB_BG {f}||
        c< JOB_CREATED {h1}
        c> SUBMIT_JOB_BG {f}||
        c< JOB_CREATED {h2}
        w> CAN_DO {f}
        w> GRAB_JOB
        w< JOB_ASSIGN {h1}|{f}|
        c= status {f}\t2\t1\t1
        c= STATUS {f}\t2\t1\t1
        c= status_all {f}\t2\t1\t1
        c= prioritystatus {f}\t0\t1\t0\t1
        c= PriorityStatus_x {f}\t0\t1\t0\t1
        w> WORK_COMPLETE {h1}|
        c= status {f}\t1\t0\t1",
    ),
    both(
        "prioritystatus counts what is queued",
        r"
        c> SUBMIT_JOB_HIGH_BG {f}||
        c< JOB_CREATED {h1}
        c> SUBMIT_JOB_LOW {f}||
        c< JOB_CREATED {h2}
        c> SUBMIT_JOB_LOW {f}||
        c< JOB_CREATED {h3}
        c= prioritystatus {f}\t1\t0\t2\t0",
    ),
    both(
        "workers shows every connection",
        r"
        w> CAN_DO {f}
        w> CAN_DO {g}
        w> SET_CLIENT_ID {i}
        c> SET_CLIENT_ID {j}
        c= workers {*} 127.0.0.1 {i} : {g} {f}
        c= workers {*} 127.0.0.1 {j} :
        c= WORKERS {*} 127.0.0.1 {j} :
        w> close
        c~ workers -{*} 127.0.0.1 {i} : {g} {f}",
    ),
    both(
        "an empty line and unknown words",
        r"
        c> '\n'
        c< 'ERR UNKNOWN_COMMAND Unknown+server+command\r\n'
        c> '\r\n'
        c< 'ERR UNKNOWN_COMMAND Unknown+server+command\r\n'
        c> 'Nonsense\n'
        c< 'ERR UNKNOWN_COMMAND Unknown+server+commandNonsense\r\n'
        c> 'nonsense and more\r\n'
        c< 'ERR UNKNOWN_COMMAND Unknown+server+commandnonsense\r\n'
        c> ' status\n'
        c< 'ERR UNKNOWN_COMMAND Unknown+server+command\r\n'
        c> 'status\tx\n'
        c< 'ERR UNKNOWN_COMMAND Unknown+server+commandstatus\tx\r\n'
        c< nothing",
    ),
    both(
        "shutdown is no command any more",
        r"
        c> 'shutdown\n'
        c< 'ERR UNKNOWN_COMMAND Unknown+server+commandshutdown\r\n'
        c> 'shutdown graceful\r\n'
        c< 'ERR UNKNOWN_COMMAND Unknown+server+commandshutdown\r\n'
        c< nothing",
    ),
    both(
        "five words are not too many",
        r"
        c> 'a b c d e\n'
        c< 'ERR UNKNOWN_COMMAND Unknown+server+commanda\r\n'
        c> 'a  b   c    d     e\n'
        c< 'ERR UNKNOWN_COMMAND Unknown+server+commanda\r\n'",
    ),
    both(
        "show jobs",
        r"
        c> SUBMIT_JOB {f}||
        c< JOB_CREATED {h1}
        c> SUBMIT_JOB_BG {f}||
        c< JOB_CREATED {h2}
        c= show_jobs {h1}\t0\t0\t0
        c= show_jobs {h2}\t0\t0\t1
        c= SHOW_Jobs {h2}\t0\t0\t1
        w> CAN_DO {f}
        w> GRAB_JOB
        w< JOB_ASSIGN {h1}|{f}|
        w> GRAB_JOB
        w< JOB_ASSIGN {h2}|{f}|
        w> RESET_ABILITIES
        c= show_jobs {h1}\t1\t0\t0
        c= show_jobs {h2}\t1\t0\t1",
    ),
    both(
        "show unique jobs",
        r"
        c> SUBMIT_JOB {f}|{u}|
        c< JOB_CREATED {h1}
        c> SUBMIT_JOB_BG {f}||
        c< JOB_CREATED {h2}
        c= show_unique_jobs {u}
        c= SHOW_UNIQUE_JOBS {u}
        c= show_unique_jobs ",
    ),
    both(
        "show anything else",
        r"
        c> 'show\n'
        c< 'ERR UNKNOWN_COMMAND Unknown+server+commandshow\r\n'
        c> 'show me\n'
        c< 'ERR UNKNOWN_SHOW_ARGUMENTS\r\n'
        c> 'show unique\n'
        c< 'ERR UNKNOWN_SHOW_ARGUMENTS\r\n'
        c> 'show unique things\n'
        c< 'ERR UNKNOWN_SHOW_ARGUMENTS\r\n'
        c< nothing",
    ),
    both(
        "cancel anything but a job",
        r"
        c> 'cancel\n'
        c< 'ERR UNKNOWN_COMMAND Unknown+server+commandcancel\r\n'
        c> 'cancel job\n'
        c< 'ERR UNKNOWN_COMMAND Unknown+server+commandcancel\r\n'
        c> 'cancel job H:none:1\n'
        c< 'ERR UNKNOWN_JOB\r\n'
        c> 'cancel work H:none:1\n'
        c< 'ERR UNKNOWN_ERROR\r\n'
        c> 'cancel job H:none:1 now\n'
        c< 'ERR UNKNOWN_ERROR\r\n'
        c< nothing",
    ),
    ours(
        "cancel a queued job",
        "1.1.20 keeps it until a worker comes by",
        r"
        w> CAN_DO {f}
        c> SUBMIT_JOB {f}|{u}|1
        c< JOB_CREATED {h1}
        a> 'Cancel JOB {h1}\n'
        a< 'OK\r\n'
        c< WORK_FAIL {h1}
        c< nothing
        a= status {f}\t0\t0\t1
        a= show_jobs -{h1}\t{*}
        a> 'cancel job {h1}\n'
        a< 'ERR UNKNOWN_JOB\r\n'
        c> GET_STATUS {h1}
        c< STATUS_RES {h1}|0|0|0|0
        c> SUBMIT_JOB {f}|{u}|2
        c< JOB_CREATED {h2}
        w> GRAB_JOB
        w< JOB_ASSIGN {h2}|{f}|2",
    ),
    both(
        "cancel tells the clients, and the job isn't run",
        r"
        w> CAN_DO {f}
        c> SUBMIT_JOB {f}||1
        c< JOB_CREATED {h1}
        a> 'cancel job {h1}\r\n'
        a< 'OK\r\n'
        c< WORK_FAIL {h1}
        w> GRAB_JOB
        w< NO_JOB
        a= status {f}\t0\t0\t1
        c< nothing",
    ),
    ours(
        "cancel a running job: one failure and no more",
        "1.1.20 passes on what the worker says afterwards",
        r"
        w> CAN_DO {f}
        c> SUBMIT_JOB {f}||1
        c< JOB_CREATED {h1}
        w> GRAB_JOB
        w< JOB_ASSIGN {h1}|{f}|1
        a> 'cancel job {h1}\n'
        a< 'OK\r\n'
        c< WORK_FAIL {h1}
        w> WORK_DATA {h1}|
        w> WORK_COMPLETE {h1}|
        a~ status {f}\t0\t0\t1
        c< nothing",
    ),
    both(
        "create function",
        r"
        c> 'create function {f}\r\n'
        c< 'OK\r\n'
        c= status {f}\t0\t0\t0
        c> 'CREATE Function {f}\r\n'
        c< 'OK\r\n'
        c= status {f}\t0\t0\t0",
    ),
    ours(
        "create function with a bare LF",
        "1.1.20 loses the last letter",
        r"
        c> 'create function {f}\n'
        c< 'OK\r\n'
        c= status {f}\t0\t0\t0",
    ),
    both(
        "create anything else",
        r"
        c> 'create\n'
        c< 'ERR INVALID_ARGUMENTS {*}\r\n'
        c> 'create function\n'
        c< 'ERR INVALID_ARGUMENTS An+incomplete+set+of+arguments+was+sent+to+this+command+create\r\n'
        c> 'create thing {f}\n'
        c< 'ERR INVALID_ARGUMENTS An+incomplete+set+of+arguments+was+sent+to+this+command+create\r\n'
        c> 'Create function {f} {g}\n'
        c< 'ERR INVALID_ARGUMENTS An+incomplete+set+of+arguments+was+sent+to+this+command+Create\r\n'
        c< nothing",
    ),
    both(
        "drop function",
        r"
        c> 'create function {f}\r\n'
        c< 'OK\r\n'
        c> 'Drop FUNCTION {f}\n'
        c< 'OK\r\n'
        c= status -{f}\t{*}
        c> 'drop function {f}\n'
        c< 'ERR function not found\r\n'
        c< nothing",
    ),
    both(
        "drop function in any case",
        r"
        c> 'create function {f}\r\n'
        c< 'OK\r\n'
        c> 'drop function {F}\n'
        c< 'OK\r\n'
        c= status -{f}\t{*}",
    ),
    both(
        "drop function that is in use",
        r"
        w> CAN_DO {f}
        c> 'drop function {f}\n'
        c< 'ERR there are still connected workers or executing clients\r\n'
        c> SUBMIT_JOB {f}||
        c< JOB_CREATED {h1}
        w> GRAB_JOB
        w< JOB_ASSIGN {h1}|{f}|
        c> 'drop function {f}\r\n'
        c< 'ERR there are still connected workers or executing clients\r\n'
        w> WORK_COMPLETE {h1}|
        c< WORK_COMPLETE {h1}|
        w> CANT_DO {f}
        c> 'drop function {f}\n'
        c< 'OK\r\n'
        c= status -{f}\t{*}",
    ),
    both(
        "drop anything else",
        r"
        c> 'drop\n'
        c< 'ERR INVALID_ARGUMENTS An+incomplete+set+of+arguments+was+sent+to+this+command+drop\r\n'
        c> 'drop function\n'
        c< 'ERR INVALID_ARGUMENTS An+incomplete+set+of+arguments+was+sent+to+this+command+drop\r\n'
        c> 'drop table x\n'
        c< 'ERR INVALID_ARGUMENTS An+incomplete+set+of+arguments+was+sent+to+this+command+drop\r\n'
        c< nothing",
    ),
    both(
        "maxqueue without a function",
        r"
        c> 'maxqueue\n'
        c< 'ERR INVALID_ARGUMENTS An+incomplete+set+of+arguments+was+sent+to+this+command+maxqueue\r\n'
        c< nothing",
    ),
    both(
        "maxqueue for all priorities, and off again",
        r"
        c> 'create function {f}\r\n'
        c< 'OK\r\n'
        c> 'maxqueue {f} 1\n'
        c< 'OK\r\n'
        c> SUBMIT_JOB_BG {f}||
        c< JOB_CREATED {h1}
        c> SUBMIT_JOB {f}||
        c< ERROR QUEUE_ERROR|Job queue is full
        c> SUBMIT_JOB_HIGH_BG {f}||
        c< ERROR QUEUE_ERROR|Job queue is full
        c> SUBMIT_JOB_LOW {f}||
        c< ERROR QUEUE_ERROR|Job queue is full
        c> SUBMIT_JOB_EPOCH {f}||1|
        c< ERROR QUEUE_ERROR|Job queue is full
        c> SUBMIT_REDUCE_JOB {f}||r||
        c< ERROR QUEUE_ERROR|Job queue is full
        c> 'MAXQUEUE {f}\n'
        c< 'OK\r\n'
        c> SUBMIT_JOB {f}||
        c< JOB_CREATED {h2}
        c= status {f}\t2\t0\t0",
    ),
    both(
        "maxqueue counts running jobs",
        r"
        c> 'create function {f}\r\n'
        c< 'OK\r\n'
        c> 'maxqueue {f} 1\r\n'
        c< 'OK\r\n'
        c> SUBMIT_JOB {f}||
        c< JOB_CREATED {h1}
        w> CAN_DO {f}
        w> GRAB_JOB
        w< JOB_ASSIGN {h1}|{f}|
        c> SUBMIT_JOB {f}||
        c< ERROR QUEUE_ERROR|Job queue is full
        w> WORK_FAIL {h1}
        c< WORK_FAIL {h1}
        c> SUBMIT_JOB {f}||
        c< JOB_CREATED {h2}",
    ),
    both(
        "maxqueue per priority",
        r"
        c> 'create function {f}\r\n'
        c< 'OK\r\n'
        c> 'maxqueue {f} 3 2 1\n'
        c< 'OK\r\n'
        c> SUBMIT_JOB_LOW_BG {f}||
        c< JOB_CREATED {h1}
        c> SUBMIT_JOB_LOW_BG {f}||
        c< ERROR QUEUE_ERROR|Job queue is full
        c> SUBMIT_JOB_BG {f}||
        c< JOB_CREATED {h2}
        c> SUBMIT_JOB_BG {f}||
        c< ERROR QUEUE_ERROR|Job queue is full
        c> SUBMIT_JOB_HIGH_BG {f}||
        c< JOB_CREATED {h3}
        c> SUBMIT_JOB_HIGH_BG {f}||
        c< ERROR QUEUE_ERROR|Job queue is full",
    ),
    both(
        "maxqueue with two limits leaves low unlimited",
        r"
        c> 'create function {f}\r\n'
        c< 'OK\r\n'
        c> 'maxqueue {f} 2 1\n'
        c< 'OK\r\n'
        c> SUBMIT_JOB_BG {f}||
        c< JOB_CREATED {h1}
        c> SUBMIT_JOB_BG {f}||
        c< ERROR QUEUE_ERROR|Job queue is full
        c> SUBMIT_JOB_HIGH_BG {f}||
        c< JOB_CREATED {h2}
        c> SUBMIT_JOB_HIGH_BG {f}||
        c< ERROR QUEUE_ERROR|Job queue is full
        c> SUBMIT_JOB_LOW_BG {f}||
        c< JOB_CREATED {h3}",
    ),
    both(
        "maxqueue of no number is no limit",
        r"
        c> 'create function {f}\r\n'
        c< 'OK\r\n'
        c> 'maxqueue {f} 1\n'
        c< 'OK\r\n'
        c> 'maxqueue {f} -4\n'
        c< 'OK\r\n'
        c> SUBMIT_JOB_BG {f}||
        c< JOB_CREATED {h1}
        c> SUBMIT_JOB_BG {f}||
        c< JOB_CREATED {h2}
        c> 'maxqueue {f} many\n'
        c< 'OK\r\n'
        c> SUBMIT_JOB_BG {f}||
        c< JOB_CREATED {h3}",
    ),
    both(
        "maxqueue of a function that isn't there yet does nothing",
        r"
        c> 'maxqueue {f} 1\n'
        c< 'OK\r\n'
        c= status -{f}\t{*}
        c> SUBMIT_JOB_BG {f}||
        c< JOB_CREATED {h1}
        c> SUBMIT_JOB_BG {f}||
        c< JOB_CREATED {h2}",
    ),
    both(
        "text and packets in one stream, answered in order",
        r"
        c> 'getpid\n\0REQ\0\0\0\x10\0\0\0\x02hinonsense\r\n\0REQ\0\0\0\x09\0\0\0\0'
        c> 'version\n\0REQ\0\0\0\x1a\0\0\0\x01xgetpid\n'
        c< 'OK {pid}\n'
        c< ECHO_RES hi
        c< 'ERR UNKNOWN_COMMAND Unknown+server+commandnonsense\r\n'
        c< NO_JOB
        c< 'OK {*}\n'
        c< ERROR UNKNOWN_OPTION|Server does not recognize given option
        c< 'OK {pid}\n'
        c< nothing",
    ),
    both(
        "lists and packets in one stream, answered in order",
        r"
        w> CAN_DO {f}
        c> SUBMIT_JOB_BG {f}|{u}|
        c= status {f}\t1\t0\t1
        c> ECHO_REQ 1
        c= show_unique_jobs {u}
        c> GRAB_JOB
        c= workers {*} : {f}
        c< JOB_CREATED {h1}
        c< ECHO_RES 1
        c< NO_JOB",
    ),
    both(
        "cancel background work",
        r"
        w> CAN_DO {f}
        c> SUBMIT_JOB_BG {f}||1
        c< JOB_CREATED {h1}
        c> SUBMIT_JOB_BG {f}||2
        c< JOB_CREATED {h2}
        c> 'cancel job {h1}\n'
        c< 'OK\r\n'
        c< nothing
        w> GRAB_JOB
        w< JOB_ASSIGN {h2}|{f}|2
        w> GRAB_JOB
        w< NO_JOB",
    ),
    both(
        "cancel tells each client",
        r"
        c> SUBMIT_JOB {f}|{u}|
        c< JOB_CREATED {h1}
        d> SUBMIT_JOB {f}|{u}|
        d< JOB_CREATED {h1}
        a> 'cancel job {h1}\n'
        a< 'OK\r\n'
        c< WORK_FAIL {h1}
        d< WORK_FAIL {h1}
        c< nothing
        d< nothing",
    ),
    ours(
        "cancel a job that isn't due",
        "1.1.20 keeps it",
        r"
        c> SUBMIT_JOB_EPOCH {f}||{now+1000}|
        c< JOB_CREATED {h1}
        c> 'cancel job {h1}\n'
        c< 'OK\r\n'
        c= status {f}\t0\t0\t0
        c= prioritystatus {f}\t0\t0\t0\t0
        c= show_jobs -{h1}\t{*}",
    ),
    both(
        "a dropped function forgets its limits",
        r"
        c> 'create function {f}\r\n'
        c< 'OK\r\n'
        c> 'maxqueue {f} 1\n'
        c< 'OK\r\n'
        c> 'drop function {f}\n'
        c< 'OK\r\n'
        c> SUBMIT_JOB_BG {f}||
        c< JOB_CREATED {h1}
        c> SUBMIT_JOB_BG {f}||
        c< JOB_CREATED {h2}",
    ),
];
