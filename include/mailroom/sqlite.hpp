// sqlite: messages that are sent if and only if a transaction of SQLite commits (`outbox`), and effects in SQLite that happen once for each
// message (`inbox`). For who asks for it: it needs libsqlite3, 3.24 or later, and queues and topics of a journal.
//
//     mailroom::outbox box{db, "orders"};                 // db: the application's sqlite3*
//     ... BEGIN; INSERT INTO purchases ...;
//     box.send(Order{7, "AAPL"});                         // one row in the same transaction
//     ... COMMIT;
//     box.relay(orders);                                  // what is committed is in the queue now, once, in order, whoever was killed when
//
//     mailroom::inbox in{db, "payments"};
//     auto d = orders.receive();
//     in.once(*d, [&](const Order& o) { pay(db, o); });   // one transaction: "seen" and the effect; then the acknowledgement
#pragma once

#include <mailroom/sqlite/inbox.hpp>
#include <mailroom/sqlite/outbox.hpp>
