/* Reads one HTTP/1.1 answer that carries an event stream: just enough to count events.
 *
 * An event counts when it has a `data:` line with a stamp, `"t":<CLOCK_MONOTONIC nanoseconds>`, and has been
 * closed by its blank line. Opening events, heartbeats and comments carry no stamp. Lines may end in LF or
 * CR LF, and every boundary (line, chunk size, stamp) may fall between two reads.
 */
#ifndef STREAM_PARSER_H
#define STREAM_PARSER_H

#include <stddef.h>
#include <stdint.h>

enum phase { HEAD, RAW, CHUNK_SIZE, CHUNK_EXTENSION, CHUNK_DATA, CHUNK_END, ENDED, BROKEN };

struct stream {
    char *held; /* the beginning of a line (or head) that a read cut */
    uint32_t held_size, held_room;
    uint32_t events;
    uint64_t stamp; /* of the event being read; 0: none seen */
    uint64_t left;  /* bytes of this chunk still to come */
    int status;     /* 0 until the head is complete */
    uint8_t phase;
    uint8_t has_body;
};

/* Called for each counted event; the program defines it. */
void event_delivered(struct stream *s, uint64_t stamp);

void stream_feed(struct stream *s, const char *data, size_t size);
void stream_reset(struct stream *s);

#endif
