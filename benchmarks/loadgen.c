/* Opens many event streams from one thread and counts their events.
 *
 *   loadgen --port P [--host 127.0.0.1] --path '/stream?channels=bench' --streams N
 *           [--header 'Name: value'] [--concurrency 200] [--sources 4] [--timeout 60]
 *           [--batch] --events K | --seconds S | --hold [--reconnect]
 *
 * Each `%d` in the path becomes the stream's index. The program prints `READY <opened> <failed> <seconds>` when every
 * stream has answered 200 and sent a first part of the body. It ends when all streams have K events, S seconds after
 * READY, or at `quit` (or end of file) on stdin, and then prints one JSON line. It reads commands from stdin at any
 * time, and answers each with one JSON line:
 *   churn M B   open and close M further streams, B at a time; each is fully open before it is closed
 *   close K     close K of the open streams
 *   status N    how many streams are open and have event N (needs --reconnect)
 *   quit        finish now
 *
 * With --batch, an event that arrives does not interrupt the process that sends it. Use it if they share a core.
 * With --reconnect, a stream that has ended or was refused comes back, and lost and doubled events are counted; see
 * account.h. READY then means that all streams are open at the same time.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "latency.h"
#include "stream_parser.h"

#ifndef IP_BIND_ADDRESS_NO_PORT
#define IP_BIND_ADDRESS_NO_PORT 24
#endif

enum state { UNUSED, CONNECTING, WAITING, OPEN, CLOSED };

struct connection {
    struct stream stream; /* must be the first member: event_delivered() casts it to the connection */
    int fd;
    uint32_t index;
    uint8_t state;
};

static struct {
    const char *host, *path;
    char headers[1024];
    int port, streams, concurrency, sources, hold, reconnect, batch;
    uint32_t events;
    double seconds, timeout;
} option = {.host = "127.0.0.1", .path = "/stream", .streams = 1, .concurrency = 200, .sources = 4, .timeout = 60};

static struct {
    uint64_t events, bytes, first_connect, ready, read_at, first, last, oldest_stamp, last_complete, cpu_first, cpu_last,
        all_open_at;
    int waiting, refused; /* with --reconnect: streams that wait for their next attempt; attempts that failed */
    int started, opening, opened, failed, complete, lost, closed_by_server, bad_status;
} count;

static struct latency latencies;
static struct connection *connections; /* the measured streams; `churn` has its own */
static struct account *accounts;       /* with --reconnect, one for each measured stream */
static uint64_t *due;                  /* with --reconnect, when each stream connects again; 0: it is not waiting */
static int poller, command_waiting, quit;
static char buffer[256 * 1024];

static uint64_t cpu_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static bool measured(const struct connection *c) { return c->index < (uint32_t)option.streams; }

void event_delivered(struct stream *s, uint64_t stamp)
{
    if (!count.events++)
        count.first = count.read_at;
    if (!count.oldest_stamp || stamp < count.oldest_stamp)
        count.oldest_stamp = stamp;
    if (s->account)
        account_event(s->account, stamp, count.read_at);
    latency_add(&latencies, count.read_at > stamp ? count.read_at - stamp : 0);
    if (s->events == option.events && measured((struct connection *)s)) {
        count.complete++;
        count.last_complete = count.read_at;
    }
}

static void watch(struct connection *c, int how, uint32_t events)
{
    struct epoll_event e = {.events = events, .data.ptr = c};
    epoll_ctl(poller, how, c->fd, &e);
}

static void finish_connection(struct connection *c)
{
    close(c->fd);
    if (c->state == OPEN && c->stream.account)
        count.opened--;
    if (c->state == CONNECTING || c->state == WAITING) {
        count.failed += !c->stream.account;
        count.opening--;
        if (c->stream.status && c->stream.status != 200)
            count.bad_status = c->stream.status;
    }
    c->state = CLOSED;
}

static void ended_by_server(struct connection *c)
{
    struct account *account = c->stream.account;
    bool was_open = c->state == OPEN;
    if (was_open && measured(c)) {
        count.closed_by_server++;
        if (c->stream.events < option.events)
            count.lost++;
    }
    finish_connection(c);
    if (account) {
        count.refused += !was_open;
        count.waiting++;
        due[c->index] = now_ns() + account_wait_ns(account, was_open);
    }
}

/* Connects without blocking, so that a full accept queue delays one stream and not the program. */
static void connect_one(struct connection *c, uint32_t index)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)option.port)};
    inet_pton(AF_INET, option.host, &to.sin_addr);
    stream_reset(&c->stream);
    c->index = index;
    c->state = CONNECTING;
    if (accounts && measured(c)) {
        c->stream.account = &accounts[index];
        account_begin(c->stream.account);
    }
    count.opening++;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (c->fd < 0) {
        perror("socket");
        exit(1);
    }
    if (option.sources > 1 && strncmp(option.host, "127.", 4) == 0) {
        /* A long run opens more connections than one source address has ports, so use several addresses. */
        struct sockaddr_in from = {.sin_family = AF_INET};
        int yes = 1;
        from.sin_addr.s_addr = htonl(INADDR_LOOPBACK + index % (unsigned)option.sources);
        setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &yes, sizeof yes);
        if (bind(c->fd, (struct sockaddr *)&from, sizeof from) < 0)
            perror("bind");
    }
    if (connect(c->fd, (struct sockaddr *)&to, sizeof to) < 0 && errno != EINPROGRESS) {
        ended_by_server(c);
        return;
    }
    watch(c, EPOLL_CTL_ADD, EPOLLOUT);
}

/* Writes the path with the stream's index in place of each %d. */
static void fill_in(char *path, size_t room, uint32_t index)
{
    const char *from = option.path, *mark;
    size_t used = 0;
    for (; (mark = strstr(from, "%d")) && used < room; from = mark + 2)
        used += (size_t)snprintf(path + used, room - used, "%.*s%u", (int)(mark - from), from, index);
    if (used < room)
        used += (size_t)snprintf(path + used, room - used, "%s", from);
    if (used >= room) {
        fprintf(stderr, "loadgen: the path is too long\n");
        exit(2);
    }
}

static void send_request(struct connection *c)
{
    char path[2048], request[4096], resume[32 + MAX_ID] = "";
    fill_in(path, sizeof path, c->index);
    if (c->stream.account && c->stream.account->id[0])
        snprintf(resume, sizeof resume, "Last-Event-ID: %s\r\n", c->stream.account->id);
    int size = snprintf(request, sizeof request,
                        "GET %s HTTP/1.1\r\nHost: %s:%d\r\nAccept: text/event-stream\r\n%s%s\r\n", path, option.host,
                        option.port, option.headers, resume);
    if (send(c->fd, request, (size_t)size, MSG_NOSIGNAL) != size) {
        ended_by_server(c);
        return;
    }
    c->state = WAITING;
    watch(c, EPOLL_CTL_MOD, EPOLLIN | EPOLLRDHUP | EPOLLET); /* EPOLLET: the kernel looks once at each arrival */
}

/* Reads once. Returns whether more may have arrived. */
static bool read_answer(struct connection *c, bool hung_up)
{
    ssize_t size = recv(c->fd, buffer, sizeof buffer, 0);
    if (size < 0 && errno == EAGAIN)
        return false;
    if (size <= 0) {
        ended_by_server(c);
        return false;
    }
    uint64_t events_before = count.events;
    count.read_at = now_ns();
    count.bytes += (uint64_t)size;
    stream_feed(&c->stream, buffer, (size_t)size);
    if (count.events != events_before) {
        count.last = count.read_at;
        if (!events_before)
            count.cpu_first = cpu_ns();
    }
    if (c->state == WAITING && c->stream.has_body && c->stream.status == 200) {
        c->state = OPEN;
        count.opening--;
        if (measured(c) && ++count.opened == option.streams)
            count.all_open_at = count.read_at;
    }
    if (c->stream.phase == ENDED || c->stream.phase == BROKEN || (c->stream.status && c->stream.status != 200)) {
        ended_by_server(c);
        return false;
    }
    return hung_up || (size_t)size == sizeof buffer;
}

/* Connects the streams whose wait is over. Looks for them every 10 ms. */
static void connect_due(void)
{
    static uint64_t next_look;
    uint64_t now = now_ns();
    if (now < next_look)
        return;
    next_look = now + 10000000;
    for (int i = 0; i < count.started; i++) {
        if (due[i] && due[i] <= now) {
            due[i] = 0;
            count.waiting--;
            connect_one(&connections[i], (uint32_t)i);
        }
    }
}

static void step(int timeout_ms)
{
    static struct epoll_event events[512];
    if (count.waiting)
        connect_due();
    while (count.started < option.streams && count.opening < option.concurrency) {
        connect_one(&connections[count.started], (uint32_t)count.started);
        count.started++;
    }
    int ready = epoll_wait(poller, events, 512, count.waiting ? 10 : timeout_ms);
    for (int i = 0; i < ready; i++) {
        struct connection *c = events[i].data.ptr;
        if (!c)
            command_waiting = 1; /* main() runs the command, because `churn` itself calls step() */
        else if (c->state == CONNECTING && events[i].events & (EPOLLERR | EPOLLHUP))
            ended_by_server(c);
        else if (c->state == CONNECTING)
            send_request(c);
        else if (c->state == WAITING || c->state == OPEN)
            while (read_answer(c, events[i].events & EPOLLRDHUP))
                ;
    }
}

static void churn(int total, int batch)
{
    uint64_t from = now_ns();
    int failed_before = count.failed, done = 0;
    struct connection *extra = calloc((size_t)batch, sizeof *extra);
    while (done < total) {
        int size = total - done < batch ? total - done : batch, opening_before = count.opening;
        for (int i = 0; i < size; i++)
            connect_one(&extra[i], (uint32_t)(option.streams + done + i));
        uint64_t started = now_ns();
        while (count.opening > opening_before && (double)(now_ns() - started) / 1e9 < option.timeout)
            step(1000);
        for (int i = 0; i < size; i++) {
            if (extra[i].state != CLOSED)
                finish_connection(&extra[i]);
            stream_reset(&extra[i].stream);
        }
        done += size;
    }
    free(extra);
    printf("{\"churned\": %d, \"failed\": %d, \"seconds\": %.6f}\n", done, count.failed - failed_before,
           (double)(now_ns() - from) / 1e9);
    count.failed = failed_before;
}

static void close_some(int wanted)
{
    int closed = 0;
    for (int i = option.streams - 1; i >= 0 && closed < wanted; i--) {
        if (connections[i].state != OPEN)
            continue;
        finish_connection(&connections[i]);
        closed++;
    }
    printf("{\"closed\": %d}\n", closed);
}

static void show_status(int number)
{
    struct arrival event = arrival_of(number);
    int behind = 0;
    for (int i = 0; i < option.streams; i++)
        behind += accounts[i].newest < number;
    printf("{\"open\": %d, \"all_open_at\": %.6f, \"ended\": %d, \"refused\": %d, ", count.opened,
           (double)count.all_open_at / 1e9, count.closed_by_server, count.refused);
    printf("\"lost\": %llu, \"doubled\": %llu, \"resets\": %llu, ", (unsigned long long)totals.lost,
           (unsigned long long)totals.doubled, (unsigned long long)totals.resets);
    printf("\"behind\": %d, \"reached\": %d, \"seconds\": %.6f}\n", behind, event.streams,
           (double)(event.last - event.stamp) / 1e9);
}

static void read_command(void)
{
    static char line[256];
    static size_t size;
    int first, second;
    command_waiting = 0;
    ssize_t got = read(0, line + size, sizeof line - 1 - size);
    if (got <= 0) {
        epoll_ctl(poller, EPOLL_CTL_DEL, 0, NULL);
        quit |= option.hold;
        return;
    }
    size += (size_t)got;
    line[size] = 0;
    if (!strchr(line, '\n') && size < sizeof line - 1)
        return;
    size = 0;
    if (sscanf(line, "churn %d %d", &first, &second) == 2 && second > 0)
        churn(first, second);
    else if (sscanf(line, "close %d", &first) == 1)
        close_some(first);
    else if (option.reconnect && sscanf(line, "status %d", &first) == 1 && first >= 0)
        show_status(first);
    else
        quit = 1;
}

static void report(void)
{
    struct rusage own;
    getrusage(RUSAGE_SELF, &own);
    count.cpu_last = cpu_ns();
    double delivery = (double)(count.last - count.first) / 1e9;
    double cpu = (double)(own.ru_utime.tv_sec + own.ru_stime.tv_sec) +
                 (double)(own.ru_utime.tv_usec + own.ru_stime.tv_usec) / 1e6;
    printf("{\"streams\": %d, \"opened\": %d, \"failed\": %d, \"status\": %d, \"connect_s\": %.6f, ", option.streams,
           count.opened, count.failed, count.bad_status,
           count.ready ? (double)(count.ready - count.first_connect) / 1e9 : 0);
    printf("\"events\": %llu, \"bytes\": %llu, \"p50_ms\": %.3f, \"p90_ms\": %.3f, \"p99_ms\": %.3f, \"max_ms\": %.3f, ",
           (unsigned long long)count.events, (unsigned long long)count.bytes, latency_ms(&latencies, 0.50),
           latency_ms(&latencies, 0.90), latency_ms(&latencies, 0.99), (double)latencies.max_ns / 1e6);
    printf("\"delivery_s\": %.6f, \"deliveries_per_s\": %.0f, \"since_stamp_s\": %.6f, ", delivery,
           delivery > 0 ? (double)count.events / delivery : 0,
           count.events ? (double)(count.last - count.oldest_stamp) / 1e9 : 0);
    printf("\"complete\": %d, \"all_complete_s\": %.6f, \"closed_by_server\": %d, ", count.complete,
           count.complete == option.streams ? (double)(count.last_complete - count.first_connect) / 1e9 : 0,
           count.closed_by_server);
    printf("\"cpu_s\": %.3f, \"delivery_cpu_s\": %.3f}\n", cpu,
           count.cpu_first ? (double)(count.cpu_last - count.cpu_first) / 1e9 : 0);
}

static void read_options(int argc, char **argv)
{
    static const struct option names[] = {
        {"host", 1, 0, 'h'},    {"port", 1, 0, 'p'},        {"path", 1, 0, 'u'},    {"streams", 1, 0, 'n'},
        {"header", 1, 0, 'H'},  {"concurrency", 1, 0, 'c'}, {"sources", 1, 0, 'S'}, {"timeout", 1, 0, 't'},
        {"events", 1, 0, 'e'},  {"seconds", 1, 0, 's'},     {"hold", 0, 0, 'w'},    {"reconnect", 0, 0, 'r'},
        {"batch", 0, 0, 'b'},   {0, 0, 0, 0}};
    int name;
    while ((name = getopt_long(argc, argv, "", names, NULL)) != -1) {
        switch (name) {
        case 'h': option.host = optarg; break;
        case 'p': option.port = atoi(optarg); break;
        case 'u': option.path = optarg; break;
        case 'n': option.streams = atoi(optarg); break;
        case 'c': option.concurrency = atoi(optarg); break;
        case 'S': option.sources = atoi(optarg); break;
        case 't': option.timeout = atof(optarg); break;
        case 'e': option.events = (uint32_t)atoi(optarg); break;
        case 's': option.seconds = atof(optarg); break;
        case 'w': option.hold = 1; break;
        case 'r': option.reconnect = 1; break;
        case 'b': option.batch = 1; break;
        case 'H': {
            size_t at = strlen(option.headers);
            snprintf(option.headers + at, sizeof option.headers - at, "%s\r\n", optarg);
            break;
        }
        default: exit(2);
        }
    }
    if (!option.port || option.streams < 1 || !(option.events || option.seconds > 0 || option.hold)) {
        fprintf(stderr, "loadgen: --port, --streams and one of --events, --seconds, --hold are needed\n");
        exit(2);
    }
    if (option.reconnect && !option.hold) {
        fprintf(stderr, "loadgen: --reconnect needs --hold\n");
        exit(2);
    }
}

static void look_if_ready(void)
{
    uint64_t now = now_ns();
    double waited = (double)(now - count.first_connect) / 1e9;
    if (count.opened + count.failed < option.streams && waited < option.timeout)
        return;
    count.ready = now;
    printf("READY %d %d %.6f\n", count.opened, option.streams - count.opened, waited);
}

static bool finished(void)
{
    double since_ready = count.ready ? (double)(now_ns() - count.ready) / 1e9 : 0;
    if (quit)
        return true;
    if (option.seconds > 0)
        return since_ready >= option.seconds;
    if (!option.events)
        return false;
    return count.complete + count.lost + count.failed >= option.streams || since_ready >= option.timeout;
}

int main(int argc, char **argv)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    read_options(argc, argv);
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    if (option.batch && sched_setscheduler(0, SCHED_BATCH, &(struct sched_param){0}) < 0)
        perror("sched_setscheduler");
    poller = epoll_create1(0);
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = NULL};
    epoll_ctl(poller, EPOLL_CTL_ADD, 0, &e); /* fails if stdin is a plain file: then there are no commands */
    connections = calloc((size_t)option.streams, sizeof *connections);
    if (option.reconnect) {
        accounts = accounts_new(option.streams);
        due = calloc((size_t)option.streams, sizeof *due);
        srandom((unsigned)getpid());
    }
    count.first_connect = now_ns();
    while (!finished()) {
        step(100);
        if (command_waiting)
            read_command();
        if (!count.ready)
            look_if_ready();
    }
    report();
    return 0;
}
