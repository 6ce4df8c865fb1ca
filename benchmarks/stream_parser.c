#define _GNU_SOURCE
#include "stream_parser.h"

#include <stdlib.h>
#include <string.h>

#define MAX_HEAD 16384
#define MAX_LINE (1 << 22)

static const char STAMP[] = "\"t\":";

static void hold(struct stream *s, const char *data, size_t size)
{
    size_t needed = s->held_size + size;
    if (needed > MAX_LINE) {
        s->phase = BROKEN;
        return;
    }
    if (needed > s->held_room) {
        s->held_room = (uint32_t)(needed < 256 ? 256 : needed * 2);
        s->held = realloc(s->held, s->held_room);
        if (!s->held)
            abort();
    }
    memcpy(s->held + s->held_size, data, size);
    s->held_size = (uint32_t)needed;
}

static uint64_t stamp_of(const char *p, const char *end)
{
    if (p < end && *p == ' ')
        p++;
    /* The data nearly always begin with `{"t":`. Only servers that wrap or reorder them need the search. */
    if (end - p > 5 && memcmp(p, "{\"t\":", 5) == 0)
        p += 5;
    else if ((p = memmem(p, (size_t)(end - p), STAMP, 4)) != NULL)
        p += 4;
    else
        return 0;
    while (p < end && *p == ' ')
        p++;
    uint64_t stamp = 0;
    for (; p < end && (unsigned)(*p - '0') < 10; p++)
        stamp = stamp * 10 + (unsigned)(*p - '0');
    return stamp;
}

static inline void read_line(struct stream *s, const char *line, size_t size)
{
    if (size && line[size - 1] == '\r')
        size--;
    if (s->account)
        account_line(s->account, line, size);
    if (size == 0) {
        if (s->stamp) {
            s->events++;
            event_delivered(s, s->stamp);
            s->stamp = 0;
        }
    } else if (size > 5 && memcmp(line, "data:", 5) == 0 && !s->stamp) {
        s->stamp = stamp_of(line + 5, line + size);
    }
}

static void read_body(struct stream *s, const char *p, const char *end)
{
    const char *newline;
    s->has_body = 1;
    if (s->held_size) {
        newline = memchr(p, '\n', (size_t)(end - p));
        hold(s, p, (size_t)((newline ? newline : end) - p));
        if (!newline || s->phase == BROKEN)
            return;
        read_line(s, s->held, s->held_size);
        s->held_size = 0;
        p = newline + 1;
    }
    while (p < end) {
        newline = memchr(p, '\n', (size_t)(end - p));
        if (!newline) {
            hold(s, p, (size_t)(end - p));
            return;
        }
        read_line(s, p, (size_t)(newline - p));
        p = newline + 1;
    }
}

static int hex(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static void read_chunks(struct stream *s, const char *p, const char *end)
{
    while (p < end) {
        switch (s->phase) {
        case CHUNK_SIZE: {
            int digit = hex(*p);
            if (digit >= 0) {
                s->left = s->left * 16 + (unsigned)digit;
                p++;
            } else {
                s->phase = CHUNK_EXTENSION;
            }
            break;
        }
        case CHUNK_EXTENSION:
            if (*p++ == '\n')
                s->phase = s->left ? CHUNK_DATA : ENDED;
            break;
        case CHUNK_DATA: {
            size_t size = (size_t)(end - p) < s->left ? (size_t)(end - p) : s->left;
            read_body(s, p, p + size);
            p += size;
            s->left -= size;
            if (s->left == 0 && s->phase == CHUNK_DATA)
                s->phase = CHUNK_END;
            break;
        }
        case CHUNK_END:
            if (*p++ == '\n')
                s->phase = CHUNK_SIZE;
            break;
        default: /* ENDED: ignore trailers; BROKEN: ignore everything */
            return;
        }
    }
}

/* Copies the head in small steps, because many kilobytes of body may follow it in the same read.
 * Returns how many bytes of `data` belong to the head, or -1 if the head is not complete yet. */
static long read_head(struct stream *s, const char *data, size_t size)
{
    size_t before = s->held_size, used = 0;
    const char *end = NULL;
    while (!end && used < size && s->phase == HEAD) {
        size_t step = size - used < 512 ? size - used : 512;
        hold(s, data + used, step);
        used += step;
        end = memmem(s->held, s->held_size, "\r\n\r\n", 4);
        if (!end && s->held_size >= MAX_HEAD)
            s->phase = BROKEN;
    }
    if (!end)
        return -1;
    long head_size = end + 4 - s->held;
    s->held[head_size - 4] = 0;
    s->status = strncmp(s->held, "HTTP/1.", 7) == 0 ? atoi(s->held + 9) : -1;
    const char *coding = strcasestr(s->held, "\r\ntransfer-encoding:");
    s->phase = coding && strcasestr(coding, "chunked") ? CHUNK_SIZE : RAW;
    s->held_size = 0;
    return head_size - (long)before;
}

void stream_feed(struct stream *s, const char *data, size_t size)
{
    if (s->phase == HEAD) {
        long used = read_head(s, data, size);
        if (used < 0)
            return;
        data += used;
        size -= (size_t)used;
    }
    if (size == 0)
        return;
    if (s->phase == RAW)
        read_body(s, data, data + size);
    else
        read_chunks(s, data, data + size);
}

void stream_reset(struct stream *s)
{
    free(s->held);
    memset(s, 0, sizeof *s);
}
