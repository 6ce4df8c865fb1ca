/* What each stream of `loadgen --reconnect` has got, and how long it waits before it connects again.
 *
 * The events of a run must count up: their data has `"n":<number>`, as publisher.py writes it. The first event of a
 * stream may have any number, each further event must have the next number. A number that is left out is lost; a
 * number that is not above the newest is doubled.
 *
 * As with EventSource (WHATWG HTML, 9.2), a stream comes back with the id of its last complete event, after the
 * reconnection time that the server has sent (flask_sse_push sends each stream a random time). If an attempt fails,
 * the stream waits a random time, whose limit doubles with each failure, as push-client.js does.
 */
#ifndef ACCOUNT_H
#define ACCOUNT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MAX_ID 64

struct account {
    char id[MAX_ID], next_id[MAX_ID]; /* id of the last complete event; id of the event that is arriving */
    int64_t number, newest;           /* number of the event that is arriving; number of the newest event; -1: none */
    uint32_t retry_ms, failures;
};

/* One event: how many streams have got it, and when the last of them got it. */
struct arrival {
    int64_t number;
    uint64_t stamp, last;
    int streams;
};

extern struct totals { uint64_t lost, doubled, resets; } totals; /* of all streams */

struct account *accounts_new(int count);
void account_begin(struct account *a); /* call before each connection */
void account_line(struct account *a, const char *line, size_t size);
void account_event(struct account *a, uint64_t stamp, uint64_t now);
uint64_t account_wait_ns(struct account *a, bool was_open); /* call when a connection has ended */
struct arrival arrival_of(int64_t number);                  /* knows only the newest events */

#endif
