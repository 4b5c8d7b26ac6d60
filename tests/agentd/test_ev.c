/* test_ev.c - the event loop: descriptors, timers, signals, wake-ups from a thread. */
#include "test.h"

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include "agentd/ev.h"
#include "base/io.h"

struct seen {
    struct ev *ev;
    struct ev_fd *fd;
    struct ev_timer *timer;
    int pipe[2], reads, ticks, signo, wakes;
};

static void on_read(void *arg, int ready)
{
    struct seen *s = arg;
    char c;
    assert_true(ready & EV_READ);
    if (read(s->pipe[0], &c, 1) == 1) {
        s->reads++;
        return;
    }
    ev_fd_free(s->fd); /* end of file; freeing inside the callback is allowed */
    s->fd = NULL;
}

static void on_tick(void *arg)
{
    struct seen *s = arg;
    if (++s->ticks == 3) {
        ev_timer_free(s->timer);
        s->timer = NULL;
        io_close(&s->pipe[1]);
    }
}

static void descriptors_and_timers(void **state)
{
    (void)state;
    struct err err = {0};
    struct seen s = {0};
    assert_int_equal(pipe(s.pipe), 0);
    ASSERT_OK(ev_new(&s.ev, &err), &err);
    ASSERT_OK(ev_fd_new(&s.fd, s.ev, s.pipe[0], on_read, &s, &err), &err);
    ev_fd_set(s.fd, EV_READ);
    ASSERT_OK(ev_timer_new(&s.timer, s.ev, on_tick, &s, &err), &err);
    int64_t began = io_mono_ns();
    ev_timer_start(s.timer, 2000000, 1000000);
    assert_int_equal(write(s.pipe[1], "ab", 2), 2);
    ev_run(s.ev); /* ends by itself: no handle is left */
    assert_true(io_mono_ns() - began >= 2000000);
    assert_int_equal(s.reads, 2);
    assert_int_equal(s.ticks, 3);
    assert_null(s.fd);
    ev_free(s.ev);
    close(s.pipe[0]);
}

static void on_signal(void *arg, int signo)
{
    struct seen *s = arg;
    s->signo = signo;
    if (s->wakes)
        ev_stop(s->ev);
}

static void on_wake(void *arg)
{
    struct seen *s = arg;
    s->wakes++;
    if (s->signo)
        ev_stop(s->ev);
}

static void *sender(void *wake)
{
    ev_wake_send(wake);
    return NULL;
}

static void signals_and_wakeups(void **state)
{
    (void)state;
    struct err err = {0};
    struct seen s = {0};
    struct ev_signal *sig;
    struct ev_wake *wake;
    pthread_t thread;
    ASSERT_OK(ev_new(&s.ev, &err), &err);
    ASSERT_OK(ev_signal_new(&sig, s.ev, SIGUSR1, on_signal, &s, &err), &err);
    ASSERT_OK(ev_wake_new(&wake, s.ev, on_wake, &s, &err), &err);
    assert_int_equal(pthread_create(&thread, NULL, sender, wake), 0);
    raise(SIGUSR1);
    ev_run(s.ev);
    pthread_join(thread, NULL);
    assert_int_equal(s.signo, SIGUSR1);
    assert_true(s.wakes >= 1);
    ev_signal_free(sig);
    ev_wake_free(wake);
    ev_free(s.ev);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(descriptors_and_timers),
        cmocka_unit_test(signals_and_wakeups),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
