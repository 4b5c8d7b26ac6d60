/* fuzz_rpc.c - anything a client may send, to a whole daemon in this process. The first byte
 * says how the rest is cut into writes; a good initialize goes first when it is odd. */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agentd/daemon_main.h"

static char dir[] = "/tmp/agentd-fuzz-XXXXXX";

static void begin(void)
{
    static char state[64], engine[96], script[64];
    static const char *sets[6] = {state, engine, "agent.profile=chat", "agent.sandbox=off",
                                  "log.level=error", "agent.approval=1s"};
    static struct daemon_opts o = {.sets = sets, .n_sets = 6, .private_mode = true,
                                   .connect_fd = -1};
    struct err err;
    if (!mkdtemp(dir))
        abort();
    snprintf(script, sizeof script, "%s/s.json", dir);
    FILE *f = fopen(script, "w");
    if (!f || fputs("{\"turns\":[{\"steps\":[{\"think\":\"t\",\"text\":\"{{user}}\"}]}]}", f) < 0 ||
        fclose(f))
        abort();
    snprintf(state, sizeof state, "store.dir=%s/state", dir);
    snprintf(engine, sizeof engine, "engine.spec=script:%s", script);
    if (daemon_start(&o, &err) < 0) {
        fprintf(stderr, "%s\n", err.text);
        abort();
    }
}

static void drain(int fd)
{
    char sink[65536];
    while (recv(fd, sink, sizeof sink, MSG_DONTWAIT) > 0)
        continue;
}

static void say(int fd, const void *p, size_t n)
{
    ssize_t put = send(fd, p, n, MSG_DONTWAIT | MSG_NOSIGNAL);
    (void)put; /* a daemon that closed the connection is a fine outcome */
    daemon_step(false);
    drain(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static int begun;
    static const char hello[] = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"initialize\",\"params\":"
                                "{\"protocolVersion\":1}}\n";
    struct err err;
    int sv[2];
    if (!begun++)
        begin();
    if (size == 0 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) < 0)
        return 0;
    if (daemon_adopt(sv[1], &err) < 0)
        abort();
    if (data[0] & 1)
        say(sv[0], hello, sizeof hello - 1);
    size_t chunk = data[0] / 2u + 1u;
    for (size_t at = 1; at < size; at += chunk)
        say(sv[0], data + at, size - at < chunk ? size - at : chunk);
    say(sv[0], "\n", 1);
    for (int i = 0; i < 4; i++)
        daemon_step(false);
    close(sv[0]);
    daemon_step(false);
    daemon_step(false);
    return 0;
}
