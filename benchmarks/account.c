#define _GNU_SOURCE
#include "account.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ARRIVALS 256
#define DEFAULT_RETRY_MS 3000
#define FIRST_LIMIT_MS 1000
#define LAST_LIMIT_MS 30000

struct totals totals;
static struct arrival arrivals[ARRIVALS];

struct account *accounts_new(int count)
{
    struct account *all = calloc((size_t)count, sizeof *all);
    for (int i = 0; i < count; i++)
        all[i] = (struct account){.number = -1, .newest = -1, .retry_ms = DEFAULT_RETRY_MS};
    return all;
}

/* Forgets the incomplete event at the end of the last connection. */
void account_begin(struct account *a)
{
    a->number = -1;
    strcpy(a->next_id, a->id);
}

static int64_t digits(const char *p, const char *end)
{
    int64_t number = 0;
    for (; p < end && (unsigned)(*p - '0') < 10; p++)
        number = number * 10 + (*p - '0');
    return number;
}

static void keep_id(struct account *a, const char *id, size_t size)
{
    if (size >= MAX_ID) {
        fprintf(stderr, "loadgen: an id has %zu bytes, but there is room for %d\n", size, MAX_ID - 1);
        exit(2);
    }
    memcpy(a->next_id, id, size);
    a->next_id[size] = 0;
}

/* Reads one line of an event. The blank line at the end of an event has size 0. */
void account_line(struct account *a, const char *line, size_t size)
{
    const char *mark;
    if (size == 0)
        strcpy(a->id, a->next_id);
    else if (size > 4 && memcmp(line, "id: ", 4) == 0)
        keep_id(a, line + 4, size - 4);
    else if (size > 5 && memcmp(line, "data:", 5) == 0 && (mark = memmem(line, size, "\"n\":", 4)))
        a->number = digits(mark + 4, line + size);
    else if (size > 7 && memcmp(line, "retry: ", 7) == 0)
        a->retry_ms = (uint32_t)digits(line + 7, line + size);
    else if (size == 16 && memcmp(line, "event: sse.reset", 16) == 0)
        totals.resets++;
}

/* Counts the event that is complete now. */
void account_event(struct account *a, uint64_t stamp, uint64_t now)
{
    int64_t number = a->number;
    a->number = -1;
    if (number < 0) {
        fprintf(stderr, "loadgen: --reconnect needs a number in each event\n");
        exit(2);
    }
    if (number <= a->newest) {
        totals.doubled++;
        return;
    }
    if (a->newest >= 0)
        totals.lost += (uint64_t)(number - a->newest - 1);
    a->newest = number;
    struct arrival *one = &arrivals[number % ARRIVALS];
    if (one->number < number)
        *one = (struct arrival){.number = number};
    if (one->number == number) {
        one->stamp = stamp;
        one->last = now;
        one->streams++;
    }
}

struct arrival arrival_of(int64_t number)
{
    struct arrival one = arrivals[number % ARRIVALS];
    return one.number == number ? one : (struct arrival){.number = number};
}

uint64_t account_wait_ns(struct account *a, bool was_open)
{
    uint64_t ms = a->retry_ms;
    if (was_open) {
        a->failures = 0;
    } else {
        ms = (ms > FIRST_LIMIT_MS ? ms : FIRST_LIMIT_MS) << a->failures;
        ms = (uint64_t)random() % (ms < LAST_LIMIT_MS ? ms : LAST_LIMIT_MS);
        a->failures += a->failures < 16;
    }
    return ms * 1000000;
}
