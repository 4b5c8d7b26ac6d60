/*
 * test_alloc.c - a whole turn, thought, call, result and answer, with its Nth allocation failing,
 * for every N: the daemon is in this process, with its scripted engine. Whatever fails, the
 * daemon lives and says so, and the next turn of another session is served.
 */
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "agentd/daemon_main.h"
#include "agentd/place.h"
#include "base/mem.h"
#include "test.h"

enum { ROUNDS = 2000 };

static char dir[] = "/tmp/agentd-alloc-XXXXXX";
static char heard[1 << 20]; /* what the daemon said to the present request */

static void begin(void)
{
    static char state[64], engine[96], script[64];
    static const char *sets[] = {state, engine, "agent.profile=code", "agent.sandbox=off",
                                 "log.level=error", "engine.retries=0"};
    static struct daemon_opts o = {.sets = sets, .n_sets = 6, .private_mode = true,
                                   .connect_fd = -1};
    struct err err;
    assert_non_null(mkdtemp(dir));
    snprintf(script, sizeof script, "%s/s.json", dir);
    FILE *f = fopen(script, "w");
    assert_non_null(f);
    fputs("{\"turns\":[{\"steps\":[{\"think\":\"t {{hash}}\",\"calls\":[{\"name\":\"plan\","
          "\"arguments\":{\"items\":[{\"content\":\"a\",\"status\":\"done\"}]}}]},"
          "{\"text\":\"said {{user}}\"}]}]}", f);
    fclose(f);
    snprintf(state, sizeof state, "store.dir=%s/state", dir);
    snprintf(engine, sizeof engine, "engine.spec=script:%s", script);
    ASSERT_OK(daemon_start(&o, &err), &err);
}

static int dial(void)
{
    int sv[2];
    struct err err;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
    ASSERT_OK(daemon_adopt(sv[1], &err), &err);
    return sv[0];
}

/* Sends one request and runs the daemon until its reply, an end of the connection, or so many
 * rounds. Returns what stands in `heard` from `find` on, or NULL. */
static char *ask(int fd, const char *line, const char *find)
{
    size_t n = 0;
    heard[0] = '\0';
    if (line && send(fd, line, strlen(line), MSG_NOSIGNAL) < 0)
        return NULL;
    for (int i = 0; i < ROUNDS; i++) {
        daemon_step(false);
        ssize_t got = recv(fd, heard + n, sizeof heard - 1 - n, MSG_DONTWAIT);
        n += got > 0 ? (size_t)got : 0;
        heard[n] = '\0';
        char *at = strstr(heard, find);
        if (at && strchr(at, '\n'))
            return at;
        if (got == 0)
            return NULL;
        if (i > 100)
            nanosleep(&(struct timespec){0, 50000}, NULL); /* the engine has a thread */
    }
    return NULL;
}

static const char hello[] = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"initialize\",\"params\":"
                            "{\"protocolVersion\":1}}\n";

/* A session on a new connection, subscribed to; returns the connection. */
static int session(char id[64])
{
    char line[256];
    int fd = dial();
    assert_non_null(ask(fd, hello, "\"id\":1"));
    snprintf(line, sizeof line, "{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"session.create\","
                                "\"params\":{\"thinking\":true,\"cwd\":\"%s\"}}\n", dir);
    char *at = ask(fd, line, "\"sessionId\":\"");
    assert_non_null(at);
    assert_int_equal(sscanf(at, "\"sessionId\":\"%36[0-9a-f-]", id), 1);
    snprintf(line, sizeof line, "{\"jsonrpc\":\"2.0\",\"id\":3,\"method\":\"session.subscribe\","
                                "\"params\":{\"sessionId\":\"%s\",\"after\":0}}\n", id);
    assert_non_null(ask(fd, line, "replay.done"));
    return fd;
}

static bool turn(int fd, const char *id)
{
    char line[256];
    snprintf(line, sizeof line, "{\"jsonrpc\":\"2.0\",\"id\":4,\"method\":\"turn.run\",\"params\":"
                                "{\"sessionId\":\"%s\",\"input\":\"hello\"}}\n", id);
    return ask(fd, line, "\"id\":4,") != NULL;
}

static void hang_up(int fd)
{
    close(fd);
    for (int i = 0; i < 4; i++)
        daemon_step(false);
}

static void test_every_allocation(void **state)
{
    char id[64];
    unsigned lost = 0, refused = 0;
    (void)state;
    begin();
    int fd = session(id);
    if (!turn(fd, id) || !strstr(heard, "said hello")) /* what is made once is there */
        fail_msg("the first turn said: %.400s", heard);
    uint64_t before = mem_count();
    assert_true(turn(fd, id));
    uint64_t most = mem_count() - before;
    hang_up(fd);
    for (uint64_t n = 1; n <= most + 20; n++) {
        fd = session(id);
        mem_fail_at(n);
        bool answered = turn(fd, id);
        mem_fail_at(0);
        bool told = answered && strstr(heard, "\"error\"");
        if (answered && !told && !strstr(heard, "said hello"))
            fail_msg("allocation %llu failed and nobody was told: %s",
                     (unsigned long long)n, heard);
        refused += told;
        lost += !answered;
        hang_up(fd);
        fd = session(id);
        if (!turn(fd, id) || !strstr(heard, "said hello"))
            fail_msg("after allocation %llu failed the next turn said: %.400s",
                     (unsigned long long)n, heard);
        hang_up(fd);
    }
    print_message("%llu allocations of a turn: %u told as an error, %u connections lost\n",
                  (unsigned long long)most, refused, lost);
    daemon_stop();
    place_remove(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_allocation)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
