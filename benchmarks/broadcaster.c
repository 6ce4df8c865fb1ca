/* The limit for all servers: sends the same bytes to every stream, and does nothing but send().
 *
 *   broadcaster --port P
 *
 * It answers every connection with fixed headers of an event stream and one opening event, in chunked framing. It
 * prints `LISTENING`, then runs commands from stdin. It answers each with one JSON line, with the CPU it took:
 *   send COUNT RATE SIZE PACK   send COUNT events of SIZE bytes of data at RATE per second (0: as fast as
 *                               possible), PACK events in each send()
 *   beat SECONDS INTERVAL       send every stream a heartbeat each INTERVAL seconds, spread evenly over time
 *   replay COUNT SIZE           from now on, send new streams COUNT events after their headers
 *   quit
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "latency.h"

#define MAX_FILES (1 << 20)

struct bytes {
    char *data;
    size_t size, room;
};

static int streams[MAX_FILES], place[MAX_FILES]; /* open streams; each descriptor's index in it, plus one */
static int stream_count, poller, listener, quit;
static struct bytes greeting;
static uint64_t sequence;

static void append(struct bytes *b, const char *data, size_t size)
{
    if (b->size + size > b->room) {
        b->room = (b->size + size) * 2;
        b->data = realloc(b->data, b->room);
    }
    memcpy(b->data + b->size, data, size);
    b->size += size;
}

static void append_chunk(struct bytes *b, const char *data, size_t size)
{
    char line[32];
    append(b, line, (size_t)snprintf(line, sizeof line, "%zX\r\n", size));
    append(b, data, size);
    append(b, "\r\n", 2);
}

/* Appends an event with `size` bytes of JSON that begin with the stamp, like the events of publisher.py. */
static void append_event(struct bytes *b, size_t size)
{
    char head[128];
    sequence++;
    append(b, head, (size_t)snprintf(head, sizeof head, "id: %llu\ndata: ", (unsigned long long)sequence));
    size_t from = b->size;
    append(b, head, (size_t)snprintf(head, sizeof head, "{\"t\":%llu,\"n\":%llu,\"x\":\"", (unsigned long long)now_ns(),
                                     (unsigned long long)sequence));
    while (b->size - from + 2 < size)
        append(b, "x", 1);
    append(b, "\"}\n\n", 4);
}

static void greet_with(long events, size_t size)
{
    static const char head[] = "HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n"
                               "Content-Type: text/event-stream; charset=utf-8\r\nCache-Control: no-cache\r\n\r\n";
    struct bytes body = {0};
    append(&body, "event: open\ndata: {}\n\n", 22);
    while (events-- > 0)
        append_event(&body, size);
    greeting.size = 0;
    append(&greeting, head, sizeof head - 1);
    append_chunk(&greeting, body.data, body.size);
    free(body.data);
}

static void forget(int fd)
{
    if (place[fd]) {
        int last = streams[--stream_count];
        streams[place[fd] - 1] = last;
        place[last] = place[fd];
        place[fd] = 0;
    }
    close(fd);
}

/* Waits while the socket is full: the benchmark's client always reads, and a cut event would spoil the count. */
static void send_all(int fd, const char *data, size_t size)
{
    while (size) {
        ssize_t sent = send(fd, data, size, MSG_NOSIGNAL);
        if (sent < 0 && errno == EAGAIN) {
            struct pollfd p = {.fd = fd, .events = POLLOUT};
            poll(&p, 1, 1000);
        } else if (sent < 0) {
            return; /* the client has left: serve() will see it */
        } else {
            data += sent;
            size -= (size_t)sent;
        }
    }
}

static void serve(int timeout_ms)
{
    static struct epoll_event events[512];
    static char request[8192];
    int ready = epoll_wait(poller, events, 512, timeout_ms);
    for (int i = 0; i < ready; i++) {
        int fd = events[i].data.fd;
        if (fd == listener) {
            while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
                struct epoll_event e = {.events = EPOLLIN, .data.fd = fd};
                epoll_ctl(poller, EPOLL_CTL_ADD, fd, &e);
            }
        } else if (fd > 0 && recv(fd, request, sizeof request, 0) <= 0) {
            forget(fd);
        } else if (fd > 0 && !place[fd]) {
            send_all(fd, greeting.data, greeting.size);
            streams[stream_count++] = fd;
            place[fd] = stream_count;
        }
    }
}

static double cpu_seconds(void)
{
    struct rusage own;
    getrusage(RUSAGE_SELF, &own);
    return (double)(own.ru_utime.tv_sec + own.ru_stime.tv_sec) +
           (double)(own.ru_utime.tv_usec + own.ru_stime.tv_usec) / 1e6;
}

static void serve_until(uint64_t deadline)
{
    for (uint64_t now = now_ns(); now < deadline; now = now_ns())
        serve((int)((deadline - now + 999999) / 1000000));
}

static void send_events(long total, double rate, size_t size, int pack)
{
    struct bytes text = {0}, chunk = {0};
    uint64_t started = now_ns();
    double cpu = cpu_seconds();
    long sent = 0;
    while (sent < total) {
        if (rate > 0)
            serve_until(started + (uint64_t)((double)sent * 1e9 / rate));
        text.size = chunk.size = 0;
        for (int i = 0; i < pack && sent < total; i++, sent++)
            append_event(&text, size);
        append_chunk(&chunk, text.data, text.size);
        for (int i = 0; i < stream_count; i++)
            send_all(streams[i], chunk.data, chunk.size);
    }
    cpu = cpu_seconds() - cpu;
    printf("{\"events\": %ld, \"streams\": %d, \"seconds\": %.6f, \"cpu_s\": %.6f, \"cpu_us_per_event_stream\": %.4f}\n", sent,
           stream_count, (double)(now_ns() - started) / 1e9, cpu,
           stream_count ? cpu * 1e6 / (double)sent / stream_count : 0);
    free(text.data);
    free(chunk.data);
}

static void send_heartbeats(double seconds, double interval)
{
    struct bytes chunk = {0};
    append_chunk(&chunk, "event: heartbeat\ndata: {}\n\n", 27);
    uint64_t started = now_ns();
    double cpu = cpu_seconds(), wanted = 0;
    long sent = 0, at = 0;
    for (double now = 0; now < seconds; now = (double)(now_ns() - started) / 1e9) {
        wanted = now / interval * stream_count;
        for (; sent < wanted && stream_count; sent++)
            send_all(streams[at++ % stream_count], chunk.data, chunk.size);
        serve_until(now_ns() + 50000000);
    }
    printf("{\"heartbeats\": %ld, \"streams\": %d, \"cpu_s\": %.6f}\n", sent, stream_count, cpu_seconds() - cpu);
    free(chunk.data);
}

static void run_command(const char *line)
{
    long total;
    double rate, interval;
    size_t size;
    int pack;
    if (sscanf(line, "send %ld %lf %zu %d", &total, &rate, &size, &pack) == 4 && pack > 0) {
        send_events(total, rate, size, pack);
    } else if (sscanf(line, "beat %lf %lf", &rate, &interval) == 2 && interval > 0) {
        send_heartbeats(rate, interval);
    } else if (sscanf(line, "replay %ld %zu", &total, &size) == 2) {
        greet_with(total, size);
        printf("{\"replay\": %ld}\n", total);
    } else {
        quit = 1;
    }
}

static void listen_on(int port)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int yes = 1;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    /* Accepted sockets inherit this option. Without it, Nagle's algorithm would delay the second small event. */
    setsockopt(listener, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    if (bind(listener, (struct sockaddr *)&at, sizeof at) < 0 || listen(listener, 4096) < 0) {
        perror("broadcaster");
        exit(1);
    }
    struct epoll_event e = {.events = EPOLLIN, .data.fd = listener}, commands = {.events = EPOLLIN, .data.fd = 0};
    poller = epoll_create1(0);
    epoll_ctl(poller, EPOLL_CTL_ADD, listener, &e);
    epoll_ctl(poller, EPOLL_CTL_ADD, 0, &commands);
}

int main(int argc, char **argv)
{
    if (argc != 3 || strcmp(argv[1], "--port") != 0) {
        fprintf(stderr, "usage: broadcaster --port P\n");
        return 2;
    }
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max < MAX_FILES ? files.rlim_max : MAX_FILES;
    setrlimit(RLIMIT_NOFILE, &files);
    setvbuf(stdout, NULL, _IOLBF, 0);
    listen_on(atoi(argv[2]));
    greet_with(0, 0);
    printf("LISTENING\n");
    while (!quit) {
        char line[256];
        struct pollfd commands = {.fd = 0, .events = POLLIN};
        serve(1000);
        if (poll(&commands, 1, 0) > 0) {
            ssize_t size = read(0, line, sizeof line - 1);
            line[size > 0 ? size : 0] = 0;
            run_command(line);
        }
    }
    return 0;
}
