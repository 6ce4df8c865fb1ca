/* The benchmark's clock and a histogram of latencies.
 *
 * All stamps are nanoseconds of CLOCK_MONOTONIC. Publisher, server and client run on one machine. This clock is
 * the same for all processes of a machine, and nobody sets it back.
 */
#ifndef LATENCY_H
#define LATENCY_H

#include <stdint.h>
#include <time.h>

static inline uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* The buckets are microseconds in 64 steps per power of two. The error is at most 1.6 %, and an event costs one
 * increment. */
#define STEPS 64
#define BUCKETS (40 * STEPS)

struct latency {
    uint64_t count[BUCKETS];
    uint64_t total;
    uint64_t max_ns;
};

static inline void latency_add(struct latency *h, uint64_t ns)
{
    uint64_t us = ns / 1000;
    unsigned at = (unsigned)us;
    if (us >= STEPS) {
        unsigned power = 63u - (unsigned)__builtin_clzll(us);
        at = (power - 5) * STEPS + (unsigned)((us >> (power - 6)) & (STEPS - 1));
        if (at >= BUCKETS)
            at = BUCKETS - 1;
    }
    h->count[at]++;
    h->total++;
    if (ns > h->max_ns)
        h->max_ns = ns;
}

static inline double latency_ms(const struct latency *h, double share)
{
    uint64_t wanted = (uint64_t)((double)h->total * share), seen = 0;
    for (unsigned at = 0; at < BUCKETS; at++) {
        seen += h->count[at];
        if (seen > wanted) {
            if (at < STEPS)
                return at / 1e3;
            unsigned shift = at / STEPS - 1;
            return (double)((uint64_t)(STEPS + at % STEPS) << shift) / 1e3;
        }
    }
    return (double)h->max_ns / 1e6;
}

#endif
