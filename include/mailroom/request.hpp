// requester and responder: a question sent through a queue, and its answer back to the one who asked.
//
//     mailroom::queue<question> questions;
//     mailroom::responder<question, answer> serve{questions, [](const question& q) { return think_about(q); }};
//     mailroom::requester<question, answer> ask{questions};
//     mailroom::result<answer> a = ask(question{42}, 2s);     // errc::timed_out after two seconds
//
// The queue is any queue<Req> in memory or in a journal, with all its options; requests are messages in it. Many requesters and many responders
// may share one; each request goes to one responder. What a responder's function throws travels back. `ask.async` waits in a coroutine, a callback
// or later; `ask.many` takes several answers to one request. Where the answer is only that it is done, Rep is void.
//
// To ask several at once, ask a topic: each of its subscriptions that has a responder is given the request, and may answer.
//
//     mailroom::topic<question> questions;
//     auto mine = questions.subscribe();
//     mailroom::responder<question, answer> serve{mine, fn};
//     mailroom::requester<question, answer> ask{questions};
//     for (mailroom::result<answer>& a : ask.many(question{42}, 2s)) {}   // from each of them, until all have answered, or the time is over
//
// A requester has no thread: who waits takes his own answer. A responder is a consumer, with its threads. How they meet, and why that is right:
// store/call.hpp.
//
// What becomes of a request whose caller no longer waits: it is taken out of the queue if nobody has it, and skipped by a responder that has it but
// has not begun. One that is stored has a time to live besides, as long as its caller waits, so that it is not answered after a crash when its time
// is over, and so has one that is sent to a topic; such requests are dropped when they expire, and are never among the dead letters. A stored request
// whose requester is of an earlier process is answered, and the answer dropped and counted.
//
// Delivery is at least once, as for every message: a responder that loses its lease, or its process, may have begun a request that another one
// is given. The first answer counts.
#pragma once

#include <mailroom/request/answer.hpp>
#include <mailroom/request/answers.hpp>
#include <mailroom/request/reply.hpp>
#include <mailroom/request/requester.hpp>
#include <mailroom/request/responder.hpp>
