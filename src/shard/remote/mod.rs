//! What concerns other cores: requests about their functions, connections that move between cores,
//! lists and questions that every core answers a part of.
//!
//! `message` is what travels, `outgoing` what waits to leave, `home` and `owner` the two ends of a
//! request, `migration` and `offload` how connections change their core.
//!
//! Invariant: messages from one core to another arrive in the order in which they were sent.

pub mod conn_key;
pub mod message;
pub mod urgency;

pub(in crate::shard) mod fan_out;
mod hand_over;
mod home;
pub(in crate::shard) mod migration;
pub(in crate::shard) mod offload;
pub(in crate::shard) mod outgoing;
mod owner;
pub(in crate::shard) mod state;
mod worker;

/// The rules by which a worker gets jobs from several cores, in words. `tests/cross_core_model`
/// holds the shards against them in every order of events.
///
/// The *home* of a connection is the core that has its socket; an *owner* is a core with functions
/// that a worker can run. The home is an owner like any other; its messages to itself are calls.
/// Messages between two cores stay in order and may take any time. `ready` is a set of priorities.
/// A *batch* is all that a core handles before it polls (`Shard::poll_dirty`).
///
/// # The home
///
/// Per worker (`state::RemoteState`) it keeps whether the worker sleeps, `woken_by` (the owner
/// whose NOOP woke it, or none), and of each owner: `hints`, the priorities that may have jobs;
/// `told`, the owner takes the worker for asleep; `unheard`, the owner may have jobs without a
/// hint; `changed`, the connection has submitted to it or withdrawn a function since its last
/// answer; `asked`, it has nothing for the grab that is open.
///
/// * CAN_DO: the packet goes to the owner, which becomes `unheard`. If the worker sleeps and the
///   owner isn't `told`, `Sleep` follows and it is.
/// * CANT_DO: the packet goes to the owner, which is `changed`. With the last function of an owner,
///   `told` and `unheard` end, and `woken_by` if it is this owner; `hints` and `changed` stay, the
///   latter without effect until the owner has a function of the worker again. RESET_ABILITIES: the
///   same for all.
/// * A function that the access list doesn't allow any more: as CANT_DO, but `Revoke` goes to the
///   owner in place of the packet.
/// * End of the connection: `Gone` to every core that knows of it; everything is forgotten.
/// * GRAB_JOB: the worker is awake; its own core hears that at once, other owners don't: those that
///   are `told` become `unheard`. The home asks the owner with the most urgent priority of its
///   `hints`, of what `Urgency` says if it is `unheard`, and of the most urgent one if it is
///   `changed`; `woken_by` comes before its equals, then they take turns. `told` ends and `Grab`
///   goes to the owner. If no owner has a priority, each one is asked once, as a hint may be on its
///   way. When all are `asked`, the answer is NO_JOB. Later requests wait until the grab is
///   answered.
/// * PRE_SLEEP: with any hint the answer is NOOP at once. Else the worker sleeps, each owner that
///   isn't `told` gets `Sleep`, and it is.
/// * `Hint{ready}`: `ready` is added to `hints`.
/// * `Noop{ready}`: `told` ends. If the worker sleeps and the owner was `told`, the worker is awake
///   and gets NOOP, it is `woken_by` this owner, and `ready` is added to `hints`. Else `Declined`
///   goes back; if the worker is awake, `ready` is added, too, and it isn't `woken_by` this owner.
/// * `Assigned{ready}`: `ready` replaces `hints`; `unheard` and `changed` end. The worker gets
///   its job. If `woken_by` is another owner, that gets `Declined`; it is none now.
/// * `Empty{ready}`: the same of `hints`, `unheard` and `changed`; without `ready` the owner is
///   `asked`; `woken_by` ends if it is this owner. The next owner is asked.
/// * Messages to a home bear the connection's generation; those of an earlier one are dropped.
///
/// # The owner
///
/// Its engine keeps per worker whether it is awake, asleep, or woken with a *lease* for a function,
/// and per priority the functions that have had jobs since the worker last looked.
///
/// * CAN_DO: if the function has jobs, a worker that is awake gets `Hint`; for one that sleeps,
///   sleepers are looked at.
/// * A job comes into an empty queue: workers that are awake and had nothing of that priority get
///   `Hint`.
/// * Sleepers are looked at when the batch ends: while a function has fewer leases than jobs, the
///   worker that fell asleep last gets `Noop` and a lease.
/// * `Grab`: the worker is awake and its lease ends. The answer is `Assigned` with the most urgent
///   job, if it is urgent enough, else `Empty`; both say what has jobs now. If a lease ended,
///   sleepers are looked at.
/// * `Sleep`: of a woken worker nothing follows, as its `Noop` is on the way. Any other is asleep,
///   and sleepers are looked at.
/// * `Declined`: a lease ends, and sleepers are looked at. A lease that ends by time: the same, and
///   all of them are woken.
/// * CANT_DO, `Gone`: jobs that the worker had go back to the heads of their queues; a lease ends.
///   Sleepers are looked at.
/// * `Revoke`: as CANT_DO, but jobs that the worker has stay with it.
///
/// # Connections that change their core
///
/// * To the core of their jobs (`hand_over`): nothing is under way when `MigrationRequested` goes;
///   from then on the owner keeps packets, hints and NOOPs for the proxy, which becomes the
///   connection. A worker that comes asleep gets the NOOP that was kept, or is asleep there; one
///   that comes awake is awake.
/// * `MigrationCancelled`: what was kept follows as `Push`; unless the proxy is asleep a `Noop`
///   follows, as one may have been kept. A home whose worker is awake declines it.
/// * Away from it (`offload`): the connection takes along whether it sleeps, its functions and what
///   has jobs for it; a lease without jobs ends. What the owner keeps until `Offloaded` follows as
///   `Push`; unless the proxy is asleep, `Noop` to a worker that left asleep, else `Hint`.
///
/// # What holds
///
/// With no message on its way and all batches ended: no job is queued beside a sleeping worker that
/// could run it, unless as many workers hold leases; leases are with workers that are about to
/// grab; every grab is answered; a worker that grabs then gets the most urgent job that is queued
/// for it. At any time a job is queued, on its way, or with one worker. Without new jobs, losses
/// and whims of workers everything comes to rest.
pub enum Rules {}
