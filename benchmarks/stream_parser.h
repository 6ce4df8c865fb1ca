/* Reads one HTTP/1.1 answer that carries an event stream, as far as it is necessary for counting events.
 *
 * An event counts when it has a `data:` line with a stamp, `"t":<CLOCK_MONOTONIC nanoseconds>`, and its blank line
 * has arrived. Opening events, heartbeats and comments have no stamp. Lines may end in LF or CR LF. A read may end
 * anywhere, also within a line, a chunk size or a stamp.
 */
#ifndef STREAM_PARSER_H
#define STREAM_PARSER_H

#include <stddef.h>
#include <stdint.h>

#include "account.h"

enum phase { HEAD, RAW, CHUNK_SIZE, CHUNK_EXTENSION, CHUNK_DATA, CHUNK_END, ENDED, BROKEN };

struct stream {
    struct account *account; /* gets each line; NULL: nobody does */
    char *held; /* beginning of a line (or head) whose rest has not arrived yet */
    uint32_t held_size, held_room;
    uint32_t events;
    uint64_t stamp; /* stamp of the current event; 0: none yet */
    uint64_t left;  /* bytes of this chunk that have not arrived yet */
    int status;     /* 0 until the head is complete */
    uint8_t phase;
    uint8_t has_body;
};

/* The parser calls this function for each counted event. The program must define it. */
void event_delivered(struct stream *s, uint64_t stamp);

void stream_feed(struct stream *s, const char *data, size_t size);
void stream_reset(struct stream *s);

#endif
