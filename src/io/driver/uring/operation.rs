//! What a submission asks for, as its user data says: the operation in the low byte, the key above.
//!
//! Invariant: `Operation::of` returns what `user_data` was given.

/// What a submission asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Operation {
    Accept,
    Place,
    Receive,
    ReceiveSingle,
    ReceiveDirect,
    Send,
    Cancel,
    Shutdown,
    Close,
    Signal,
    Wakeup,
    HandOver,
    Install,
    Timer,
    SetTimer,
    Acknowledge,
}

impl Operation {
    const ALL: [Self; 16] = [
        Self::Accept,
        Self::Place,
        Self::Receive,
        Self::ReceiveSingle,
        Self::ReceiveDirect,
        Self::Send,
        Self::Cancel,
        Self::Shutdown,
        Self::Close,
        Self::Signal,
        Self::Wakeup,
        Self::HandOver,
        Self::Install,
        Self::Timer,
        Self::SetTimer,
        Self::Acknowledge,
    ];

    /// User data of a submission for the connection, or the acceptor, with the number `key`.
    pub(super) fn user_data(self, key: usize) -> u64 {
        (key as u64) << 8 | self as u64
    }

    /// The operation and the key in a completion's user data.
    pub(super) fn of(user_data: u64) -> (Option<Self>, usize) {
        let [operation, ..] = user_data.to_le_bytes();
        let key = usize::try_from(user_data >> 8).unwrap_or(usize::MAX);
        (Self::ALL.get(usize::from(operation)).copied(), key)
    }
}
