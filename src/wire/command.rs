//! The command table: every packet of the Gearman protocol by its number.
//!
//! Numbers in, commands out: each with its name, its sender, the number of its NUL-terminated
//! arguments and whether a payload follows them. Knows no bytes of a packet.
//!
//! Invariant: arguments never exceed `ARGUMENTS_BYTES_MAX`, so an argument's offset fits 16 bits.

/// Largest size of a packet's arguments, NULs included, payload excluded (gearmand's limit is the
/// size of its receive buffer, too).
pub const ARGUMENTS_BYTES_MAX: usize = 8192;

/// Longest text line, without its line end (the same limit).
pub const LINE_BYTES_MAX: usize = 8192;

const _: () = assert!(ARGUMENTS_BYTES_MAX <= u16::MAX as usize);

/// Which side of the protocol sends a packet. The server doesn't tell clients from workers: any
/// connection may submit jobs and grab them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// Clients and workers.
    Peer,
    /// The job server.
    Server,
    /// Both: results travel worker → server → client.
    Both,
    /// Neither; the number is reserved.
    Neither,
}

macro_rules! commands {
    ($($(#[$doc:meta])* $number:literal $variant:ident $name:literal $sender:ident
        $arguments:literal $payload:literal;)*) => {
        /// Every packet type of the Gearman protocol, by its protocol number.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Command {
            $($(#[$doc])* #[doc = concat!("`", $name, "`")] $variant = $number,)*
        }

        impl Command {
            /// All commands in the order of their numbers, which start at 1.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The protocol's name of the packet.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// Which side sends the packet.
            #[must_use]
            pub const fn sender(self) -> Sender {
                match self { $(Self::$variant => Sender::$sender,)* }
            }

            /// Number of arguments, the payload not counted.
            #[must_use]
            pub const fn arguments(self) -> usize {
                match self { $(Self::$variant => $arguments,)* }
            }

            /// Whether a payload follows the arguments, each of which then ends with a NUL.
            /// Without a payload the last argument extends to the end of the body.
            #[must_use]
            pub const fn has_payload(self) -> bool {
                match self { $(Self::$variant => $payload,)* }
            }
        }
    };
}

commands! {
    // number, variant, name, sender, arguments, payload
    1 CanDo "CAN_DO" Peer 1 false;
    2 CantDo "CANT_DO" Peer 1 false;
    3 ResetAbilities "RESET_ABILITIES" Peer 0 false;
    4 PreSleep "PRE_SLEEP" Peer 0 false;
    5 Unused "(unused)" Neither 0 false;
    6 Noop "NOOP" Server 0 false;
    7 SubmitJob "SUBMIT_JOB" Peer 2 true;
    8 JobCreated "JOB_CREATED" Server 1 false;
    9 GrabJob "GRAB_JOB" Peer 0 false;
    10 NoJob "NO_JOB" Server 0 false;
    11 JobAssign "JOB_ASSIGN" Server 2 true;
    12 WorkStatus "WORK_STATUS" Both 3 false;
    13 WorkComplete "WORK_COMPLETE" Both 1 true;
    14 WorkFail "WORK_FAIL" Both 1 false;
    15 GetStatus "GET_STATUS" Peer 1 false;
    16 EchoReq "ECHO_REQ" Peer 0 true;
    17 EchoRes "ECHO_RES" Server 0 true;
    18 SubmitJobBg "SUBMIT_JOB_BG" Peer 2 true;
    19 Error "ERROR" Server 2 false;
    20 StatusRes "STATUS_RES" Server 5 false;
    21 SubmitJobHigh "SUBMIT_JOB_HIGH" Peer 2 true;
    22 SetClientId "SET_CLIENT_ID" Peer 1 false;
    23 CanDoTimeout "CAN_DO_TIMEOUT" Peer 2 false;
    24 AllYours "ALL_YOURS" Neither 0 false;
    25 WorkException "WORK_EXCEPTION" Both 1 true;
    26 OptionReq "OPTION_REQ" Peer 1 false;
    27 OptionRes "OPTION_RES" Server 1 false;
    28 WorkData "WORK_DATA" Both 1 true;
    29 WorkWarning "WORK_WARNING" Both 1 true;
    30 GrabJobUniq "GRAB_JOB_UNIQ" Peer 0 false;
    31 JobAssignUniq "JOB_ASSIGN_UNIQ" Server 3 true;
    32 SubmitJobHighBg "SUBMIT_JOB_HIGH_BG" Peer 2 true;
    33 SubmitJobLow "SUBMIT_JOB_LOW" Peer 2 true;
    34 SubmitJobLowBg "SUBMIT_JOB_LOW_BG" Peer 2 true;
    // gearmand parses it and then refuses it; the protocol text doesn't say what it does.
    35 SubmitJobSched "SUBMIT_JOB_SCHED" Neither 7 true;
    36 SubmitJobEpoch "SUBMIT_JOB_EPOCH" Peer 3 true;
    // Four arguments, as libgearman sends them; the protocol text lists three.
    37 SubmitReduceJob "SUBMIT_REDUCE_JOB" Peer 4 true;
    38 SubmitReduceJobBackground "SUBMIT_REDUCE_JOB_BACKGROUND" Peer 4 true;
    39 GrabJobAll "GRAB_JOB_ALL" Peer 0 false;
    40 JobAssignAll "JOB_ASSIGN_ALL" Server 4 true;
    41 GetStatusUnique "GET_STATUS_UNIQUE" Peer 1 false;
    42 StatusResUnique "STATUS_RES_UNIQUE" Server 6 false;
}

impl Command {
    /// The command with this protocol number, if there is one.
    #[inline]
    #[must_use]
    pub fn from_number(number: u32) -> Option<Self> {
        let index = usize::try_from(number).ok()?.checked_sub(1)?;
        Self::ALL.get(index).copied()
    }

    /// Whether the packet submits a job.
    #[must_use]
    pub const fn is_submission(self) -> bool {
        matches!(
            self,
            Self::SubmitJob
                | Self::SubmitJobBg
                | Self::SubmitJobHigh
                | Self::SubmitJobHighBg
                | Self::SubmitJobLow
                | Self::SubmitJobLowBg
                | Self::SubmitJobEpoch
                | Self::SubmitReduceJob
                | Self::SubmitReduceJobBackground
        )
    }

    /// The protocol's number of the packet.
    #[inline]
    #[must_use]
    pub const fn number(self) -> u32 {
        self as u32
    }

    /// Whether the packet has any argument besides a payload.
    #[inline]
    #[must_use]
    pub const fn has_arguments(self) -> bool {
        self.arguments() > 0
    }
}
