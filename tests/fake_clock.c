/* LD_PRELOAD: a wall clock that is off by as many nanoseconds as the file FAKE_CLOCK_FILE says, an int64 that may change
 * at any time. The monotonic clocks are the machine's, as when somebody sets the clock. Not shifted: times of files and of
 * processes, which the kernel gives.
 *
 * Programs and Java reach the vDSO through these functions of glibc's. A wait until a moment of the wall clock is handed
 * to the kernel as that moment of the machine's clock: otherwise it would last as long as the clock is off.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define BILLION 1000000000LL
/* Seconds since the machine was started are fewer than this, seconds since 1970 more: which clock a condition goes by is
 * not told by its wait. */
#define LONGEST_UPTIME 1000000000LL

static int64_t none;
static int64_t *volatile shared;

/* Found at the first call: constructors of other libraries may ask for the time before one of this library would run. */
static int64_t offset(void) {
    if (shared == NULL) {
        const char *path = getenv("FAKE_CLOCK_FILE");
        int file = path == NULL ? -1 : open(path, O_RDONLY | O_CLOEXEC);
        void *place = file < 0 ? MAP_FAILED : mmap(NULL, sizeof none, PROT_READ, MAP_SHARED, file, 0);
        if (file >= 0) close(file);
        shared = place == MAP_FAILED ? &none : place;
    }
    return __atomic_load_n(shared, __ATOMIC_RELAXED);
}

static void shift(struct timespec *moment, int64_t by) {
    int64_t nanoseconds = moment->tv_nsec + by % BILLION;
    moment->tv_sec += by / BILLION;
    if (nanoseconds < 0) { nanoseconds += BILLION; moment->tv_sec--; }
    if (nanoseconds >= BILLION) { nanoseconds -= BILLION; moment->tv_sec++; }
    moment->tv_nsec = nanoseconds;
}

/* The version matters: the oldest one of a function of conditions knows another layout of them. */
static void *next(const char *name, const char *version) {
    void *found = version == NULL ? NULL : dlvsym(RTLD_NEXT, name, version);
    return found != NULL ? found : dlsym(RTLD_NEXT, name);
}
#define NEXT(type, name, version) \
    static type found; \
    if (found == NULL) found = (type)next(name, version)

static struct timespec machines(const struct timespec *moment) {
    struct timespec changed = *moment;
    if (changed.tv_sec > LONGEST_UPTIME) shift(&changed, -offset());
    return changed;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    typedef int (*function)(clockid_t, struct timespec *);
    NEXT(function, "clock_gettime", NULL);
    int result = found(clock, now);
    if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE || clock == CLOCK_TAI))
        shift(now, offset());
    return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    (void)zone;
    struct timespec moment;
    int result = clock_gettime(CLOCK_REALTIME, &moment);
    if (result == 0) { now->tv_sec = moment.tv_sec; now->tv_usec = moment.tv_nsec / 1000; }
    return result;
}

time_t time(time_t *now) {
    struct timespec moment;
    clock_gettime(CLOCK_REALTIME, &moment);
    if (now != NULL) *now = moment.tv_sec;
    return moment.tv_sec;
}

int timespec_get(struct timespec *now, int base) {
    return base == TIME_UTC && clock_gettime(CLOCK_REALTIME, now) == 0 ? base : 0;
}

int clock_nanosleep(clockid_t clock, int flags, const struct timespec *until, struct timespec *left) {
    typedef int (*function)(clockid_t, int, const struct timespec *, struct timespec *);
    NEXT(function, "clock_nanosleep", NULL);
    if (clock != CLOCK_REALTIME || !(flags & TIMER_ABSTIME)) return found(clock, flags, until, left);
    struct timespec moment = machines(until);
    return found(clock, flags, &moment, left);
}

int pthread_cond_timedwait(pthread_cond_t *restrict condition, pthread_mutex_t *restrict mutex,
                           const struct timespec *restrict until) {
    typedef int (*function)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
    NEXT(function, "pthread_cond_timedwait", "GLIBC_2.3.2");
    struct timespec moment = machines(until);
    return found(condition, mutex, &moment);
}

int pthread_cond_clockwait(pthread_cond_t *restrict condition, pthread_mutex_t *restrict mutex, clockid_t clock,
                           const struct timespec *restrict until) {
    typedef int (*function)(pthread_cond_t *, pthread_mutex_t *, clockid_t, const struct timespec *);
    NEXT(function, "pthread_cond_clockwait", NULL);
    struct timespec moment = machines(until);
    return found(condition, mutex, clock, &moment);
}

int pthread_mutex_timedlock(pthread_mutex_t *restrict mutex, const struct timespec *restrict until) {
    typedef int (*function)(pthread_mutex_t *, const struct timespec *);
    NEXT(function, "pthread_mutex_timedlock", NULL);
    struct timespec moment = machines(until);
    return found(mutex, &moment);
}

int sem_timedwait(sem_t *restrict semaphore, const struct timespec *restrict until) {
    typedef int (*function)(sem_t *, const struct timespec *);
    NEXT(function, "sem_timedwait", NULL);
    struct timespec moment = machines(until);
    return found(semaphore, &moment);
}

int sem_clockwait(sem_t *restrict semaphore, clockid_t clock, const struct timespec *restrict until) {
    typedef int (*function)(sem_t *, clockid_t, const struct timespec *);
    NEXT(function, "sem_clockwait", NULL);
    struct timespec moment = machines(until);
    return found(semaphore, clock, &moment);
}
