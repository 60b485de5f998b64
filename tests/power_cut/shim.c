/*
 * A disk that loses what was not synced, and that can be full: preloaded under a whole process.
 *
 * The rule of this file: below the shadow folder stands, at every moment, what a power cut would
 * leave behind. A file's bytes get there when the file is synced, its name when its folder is.
 *
 *   POWER_CUT_DATA    the guarded folder, absolute
 *   POWER_CUT_SHADOW  the shadow folder, made by `shim.rs`:
 *       tree/         the guarded folder as it would be after the cut; files are hard links to …
 *       files/<inode> … the synced bytes of each guarded file
 *       folders/<inode> what was synced of a folder whose own name is not synced yet
 *       space         if it exists: how many more bytes the disk takes (a decimal number), and,
 *                     after a space, what a path must hold to be counted
 *       lies          if it exists: the disk says that it has synced what has this text in its
 *                     path, and has not
 *   POWER_CUT_AT_SYNC the power goes when the process asks for its so many-th sync, before it is done
 *
 * Files are known by their inode, so that renames, links and duplicated descriptors need no
 * bookkeeping. Not modelled: renaming a folder (it counts as synced), writes through mmap (SQLite's
 * -shm, which means nothing after a crash, is left out), sync() and syncfs() (they promise nothing).
 * A system call that is made without libc (a rename by rustix) is not seen; since folders are looked
 * at when they are synced, that costs nothing.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define REAL(type, name, ...)                                      \
    static type (*real)(__VA_ARGS__);                              \
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, name)

static char data_folder[PATH_MAX], shadow_folder[PATH_MAX];
static dev_t data_device;
/* How many syncs are done before the power goes; 0 for ever. */
static long syncs_left;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
/* Set while this file itself uses the disk: its own calls are not looked at. */
static __thread int inside;

__attribute__((constructor)) static void begin(void) {
    const char *data = getenv("POWER_CUT_DATA"), *shadow = getenv("POWER_CUT_SHADOW");
    struct stat status;
    if (data && shadow && !stat(data, &status)) {
        data_device = status.st_dev;
        snprintf(data_folder, sizeof data_folder, "%s", data);
        snprintf(shadow_folder, sizeof shadow_folder, "%s", shadow);
        const char *at_sync = getenv("POWER_CUT_AT_SYNC");
        if (at_sync) syncs_left = strtol(at_sync, NULL, 10);
    }
}

/* Says loudly that the model itself failed: a test must not go on with a wrong shadow. */
static void broken(const char *what) {
    fprintf(stderr, "power cut shim: %s: %s\n", what, strerror(errno));
    abort();
}

/* ---- what was written and is not synced ---------------------------------------------------- */

struct range { off_t from, to; };

struct file {
    ino_t inode;
    off_t size; /* the largest size since the last sync: what a truncation cut off */
    size_t count, room;
    struct range *ranges;
    struct file *next;
};

#define BUCKETS 4096
static struct file *files[BUCKETS];

static struct file *find(ino_t inode) {
    struct file *file = files[inode % BUCKETS];
    while (file && file->inode != inode) file = file->next;
    return file;
}

static void forget(ino_t inode) {
    for (struct file **at = &files[inode % BUCKETS]; *at; at = &(*at)->next) {
        struct file *file = *at;
        if (file->inode == inode) {
            *at = file->next;
            free(file->ranges);
            free(file);
            return;
        }
    }
}

static void shadow_of(ino_t inode, const char *kind, char *path) {
    snprintf(path, PATH_MAX, "%s/%s/%lu", shadow_folder, kind, (unsigned long)inode);
}

static void dirty(struct file *file, off_t from, off_t to) {
    if (to <= from) return;
    if (to > file->size) file->size = to;
    struct range *last = file->count ? &file->ranges[file->count - 1] : NULL;
    if (last && from <= last->to && to >= last->from) {
        if (from < last->from) last->from = from;
        if (to > last->to) last->to = to;
        return;
    }
    if (file->count == file->room) {
        file->room = file->room ? file->room * 2 : 16;
        file->ranges = realloc(file->ranges, file->room * sizeof *file->ranges);
        if (!file->ranges) broken("memory");
    }
    file->ranges[file->count++] = (struct range){from, to};
}

/* The path behind a descriptor, if it is guarded; relative to the guarded folder. */
static const char *guarded(int descriptor, char *path) {
    char link[64];
    size_t length = strlen(data_folder);
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t read = readlink(link, path, PATH_MAX - 1);
    if (read < 0) return NULL;
    path[read] = 0;
    if (strncmp(path, data_folder, length) || (path[length] && path[length] != '/')) return NULL;
    return path[length] ? path + length + 1 : path + length;
}

/* SQLite's shared memory means nothing after a crash. */
static int is_scratch(const char *path) {
    size_t length = strlen(path);
    return length >= 4 && !strcmp(path + length - 4, "-shm");
}

/* Reads a small file that a test has put into the shadow folder; says whether there is one. */
static int told(const char *name, char *text, size_t room) {
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", shadow_folder, name);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) return 0;
    ssize_t length = read(file, text, room - 1);
    if (length < 0) broken(path);
    text[length] = 0;
    close(file);
    return 1;
}

/* Looks at a file that was just opened: from now on its inode is known. */
static void opened(int descriptor, int is_new, int was_truncated, off_t size_before) {
    char path[PATH_MAX], shadow[PATH_MAX];
    struct stat status;
    if (fstat(descriptor, &status) || !S_ISREG(status.st_mode)) return;
    const char *name = guarded(descriptor, path);
    if (!name || is_scratch(name)) return;
    pthread_mutex_lock(&lock);
    shadow_of(status.st_ino, "files", shadow);
    if (is_new && find(status.st_ino)) {
        /* Its inode was another file's, which lost its name unseen. */
        forget(status.st_ino);
        unlink(shadow);
    }
    struct file *file = find(status.st_ino);
    if (!file) {
        file = calloc(1, sizeof *file);
        if (!file) broken("memory");
        file->inode = status.st_ino;
        file->next = files[status.st_ino % BUCKETS];
        files[status.st_ino % BUCKETS] = file;
        file->size = status.st_size;
        /* Without synced bytes there is still the empty file. */
        int made = open(shadow, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
        if (made < 0) broken(shadow);
        close(made);
    }
    if (was_truncated) dirty(file, 0, size_before);
    pthread_mutex_unlock(&lock);
}

/* ---- a disk that is full ------------------------------------------------------------------- */

/* How much of a write that reaches from `size` to `end` the disk still takes. */
static size_t room_for(const char *name, off_t size, off_t end, size_t wanted) {
    static off_t used;
    char text[256], *of;
    if (!told("space", text, sizeof text)) {
        used = 0;
        return wanted;
    }
    off_t space = strtoll(text, &of, 10);
    if (*of == ' ' && !strstr(name, of + 1)) return wanted;
    off_t grows = end > size ? end - size : 0, left = space - used;
    if (left < 0) left = 0;
    if (grows <= left) {
        used += grows;
        return wanted;
    }
    used += left;
    off_t lacks = grows - left;
    return (off_t)wanted > lacks ? wanted - lacks : 0;
}

/* Before a write: how much of it fits, or -1 with ENOSPC. */
static ssize_t admit(int descriptor, off_t at, size_t count) {
    char path[PATH_MAX];
    struct stat status;
    if (inside || !*data_folder || fstat(descriptor, &status) || !S_ISREG(status.st_mode)) return count;
    const char *name = guarded(descriptor, path);
    if (!name) return count;
    if (at < 0) at = fcntl(descriptor, F_GETFL) & O_APPEND ? status.st_size : lseek(descriptor, 0, SEEK_CUR);
    inside = 1;
    pthread_mutex_lock(&lock);
    size_t fits = room_for(name, status.st_size, at + count, count);
    pthread_mutex_unlock(&lock);
    inside = 0;
    if (!fits && count) {
        errno = ENOSPC;
        return -1;
    }
    return fits;
}

/* After a write: these bytes are not synced. */
static void wrote(int descriptor, off_t at, ssize_t count) {
    struct stat status;
    if (inside || count <= 0 || !*data_folder || fstat(descriptor, &status) || !S_ISREG(status.st_mode)) return;
    if (at < 0) at = lseek(descriptor, 0, SEEK_CUR) - count;
    pthread_mutex_lock(&lock);
    struct file *file = find(status.st_ino);
    if (file) dirty(file, at, at + count);
    pthread_mutex_unlock(&lock);
}

/* ---- syncing ------------------------------------------------------------------------------- */

/* Copies what was written since the last sync. A kill in the middle leaves a part of it, which is
 * what a power cut during a sync does. */
static void sync_file(int descriptor, struct file *file, off_t size) {
    static char buffer[1 << 16];
    char shadow[PATH_MAX], link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    int from = open(link, O_RDONLY | O_CLOEXEC); /* the descriptor may not be readable */
    shadow_of(file->inode, "files", shadow);
    int to = open(shadow, O_WRONLY | O_CLOEXEC);
    if (from < 0 || to < 0) broken(shadow);
    for (size_t index = 0; index < file->count; index++) {
        off_t at = file->ranges[index].from, end = file->ranges[index].to;
        if (end > size) end = size;
        while (at < end) {
            size_t want = end - at < (off_t)sizeof buffer ? (size_t)(end - at) : sizeof buffer;
            ssize_t read = pread(from, buffer, want, at);
            if (read < 0) broken(link);
            if (read == 0) break;
            if (pwrite(to, buffer, read, at) != read) broken(shadow);
            at += read;
        }
    }
    if (ftruncate(to, size)) broken(shadow);
    close(from);
    close(to);
    file->count = 0;
    file->size = size;
}

/* Where the shadow of a folder stands: in the tree if its name is synced, else beside it. */
static void shadow_folder_of(const char *name, ino_t inode, char *shadow) {
    snprintf(shadow, PATH_MAX, "%s/tree/%s", shadow_folder, name);
    struct stat status;
    if (stat(shadow, &status)) {
        shadow_of(inode, "folders", shadow);
        mkdir(shadow, 0700);
    }
}

/* Makes a folder's names in the shadow those of now: first the new ones, then without the old. */
static void sync_folder(int descriptor, const char *name, ino_t inode) {
    char shadow[PATH_MAX], to[2 * PATH_MAX], from[PATH_MAX];
    struct stat status, kept;
    struct dirent *entry;
    shadow_folder_of(name, inode, shadow);

    int again = openat(descriptor, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *now = again < 0 ? NULL : fdopendir(again);
    if (!now) broken(name);
    while ((entry = readdir(now))) {
        const char *own = entry->d_name;
        if (!strcmp(own, ".") || !strcmp(own, "..") || is_scratch(own)) continue;
        if (fstatat(descriptor, own, &status, AT_SYMLINK_NOFOLLOW)) continue;
        snprintf(to, sizeof to, "%s/%s", shadow, own);
        if (S_ISDIR(status.st_mode)) {
            if (!stat(to, &kept)) continue;
            shadow_of(status.st_ino, "folders", from);
            if (rename(from, to) && mkdir(to, 0700)) broken(to);
        } else if (S_ISREG(status.st_mode)) {
            struct stat bytes;
            shadow_of(status.st_ino, "files", from);
            if (stat(from, &bytes)) continue; /* it was never opened under the shim */
            if (!stat(to, &kept) && kept.st_ino == bytes.st_ino) continue;
            char fresh[2 * PATH_MAX + 8];
            snprintf(fresh, sizeof fresh, "%s/fresh", shadow_folder);
            unlink(fresh);
            if (link(from, fresh) || rename(fresh, to)) broken(to);
        }
    }
    closedir(now);

    DIR *before = opendir(shadow);
    if (!before) broken(shadow);
    while ((entry = readdir(before))) {
        const char *own = entry->d_name;
        if (!strcmp(own, ".") || !strcmp(own, "..")) continue;
        if (!fstatat(descriptor, own, &status, AT_SYMLINK_NOFOLLOW)) continue;
        if (unlinkat(dirfd(before), own, 0)) unlinkat(dirfd(before), own, AT_REMOVEDIR);
    }
    closedir(before);
}

static int sync_descriptor(int descriptor) {
    char path[PATH_MAX], lies[256];
    struct stat status;
    if (fstat(descriptor, &status)) return -1;
    const char *name = guarded(descriptor, path);
    if (!name) return 1;
    inside = 1;
    pthread_mutex_lock(&lock);
    if (syncs_left && !--syncs_left) kill(getpid(), SIGKILL);
    if (told("lies", lies, sizeof lies) && strstr(name, lies)) {
        /* Nothing is done, and nobody hears of it. */
    } else if (S_ISDIR(status.st_mode)) {
        sync_folder(descriptor, name, status.st_ino);
    } else {
        struct file *file = find(status.st_ino);
        /* Its size of now: another thread may have made it longer, and synced it, since it was looked at. */
        if (file && !fstat(descriptor, &status)) sync_file(descriptor, file, status.st_size);
    }
    pthread_mutex_unlock(&lock);
    inside = 0;
    return 0;
}

/* The shadow is the disk here: a real sync would only make the test slower. */
int fsync(int descriptor) {
    REAL(int, "fsync", int);
    if (inside || !*data_folder) return real(descriptor);
    int outcome = sync_descriptor(descriptor);
    return outcome == 1 ? real(descriptor) : outcome;
}

int fdatasync(int descriptor) {
    REAL(int, "fdatasync", int);
    if (inside || !*data_folder) return real(descriptor);
    int outcome = sync_descriptor(descriptor);
    return outcome == 1 ? real(descriptor) : outcome;
}

/* ---- opening ------------------------------------------------------------------------------- */

static off_t size_of(int folder, const char *path) {
    struct stat status;
    return fstatat(folder, path, &status, 0) ? 0 : status.st_size;
}

#define OPEN(name, declared, folder, path, ...)                                      \
    int name declared {                                                              \
        REAL(int, #name, __VA_ARGS__);                                               \
        mode_t mode = 0;                                                             \
        if (flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE) {                   \
            va_list arguments;                                                       \
            va_start(arguments, flags);                                              \
            mode = va_arg(arguments, mode_t);                                        \
            va_end(arguments);                                                       \
        }                                                                            \
        int saved = errno, looks = !inside && *data_folder;                          \
        off_t before = looks && flags & O_TRUNC ? size_of(folder, path) : 0;         \
        errno = saved;                                                               \
        int descriptor = CALL_##name;                                                \
        if (descriptor >= 0 && looks) {                                              \
            inside = 1;                                                              \
            int is_new = flags & O_CREAT && flags & O_EXCL;                          \
            opened(descriptor, is_new, flags & O_TRUNC, before);                     \
            inside = 0;                                                              \
        }                                                                            \
        return descriptor;                                                           \
    }

#define CALL_open real(path, flags, mode)
#define CALL_open64 real(path, flags, mode)
#define CALL_openat real(folder, path, flags, mode)
#define CALL_openat64 real(folder, path, flags, mode)
OPEN(open, (const char *path, int flags, ...), AT_FDCWD, path, const char *, int, ...)
OPEN(open64, (const char *path, int flags, ...), AT_FDCWD, path, const char *, int, ...)
OPEN(openat, (int folder, const char *path, int flags, ...), folder, path, int, const char *, int, ...)
OPEN(openat64, (int folder, const char *path, int flags, ...), folder, path, int, const char *, int, ...)

int creat(const char *path, mode_t mode) { return open(path, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int creat64(const char *path, mode_t mode) { return open(path, O_CREAT | O_WRONLY | O_TRUNC, mode); }

/* ---- writing ------------------------------------------------------------------------------- */

ssize_t write(int descriptor, const void *bytes, size_t count) {
    REAL(ssize_t, "write", int, const void *, size_t);
    ssize_t fits = admit(descriptor, -1, count);
    if (fits < 0) return -1;
    ssize_t written = real(descriptor, bytes, fits);
    wrote(descriptor, -1, written);
    return written;
}

#define PWRITE(name, offset)                                                        \
    ssize_t name(int descriptor, const void *bytes, size_t count, offset at) {      \
        REAL(ssize_t, #name, int, const void *, size_t, offset);                    \
        ssize_t fits = admit(descriptor, at, count);                                \
        if (fits < 0) return -1;                                                    \
        ssize_t written = real(descriptor, bytes, fits, at);                        \
        wrote(descriptor, at, written);                                             \
        return written;                                                             \
    }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

static size_t total(const struct iovec *parts, int count) {
    size_t sum = 0;
    for (int index = 0; index < count; index++) sum += parts[index].iov_len;
    return sum;
}

/* Where not all of it fits, the first part alone is tried: a short write, as the call may do. */
ssize_t writev(int descriptor, const struct iovec *parts, int count) {
    REAL(ssize_t, "writev", int, const struct iovec *, int);
    size_t wanted = total(parts, count);
    ssize_t fits = admit(descriptor, -1, wanted);
    if (fits < 0) return -1;
    if ((size_t)fits < wanted) return write(descriptor, parts[0].iov_base, parts[0].iov_len);
    ssize_t written = real(descriptor, parts, count);
    wrote(descriptor, -1, written);
    return written;
}

#define PWRITEV(name, offset)                                                            \
    ssize_t name(int descriptor, const struct iovec *parts, int count, offset at) {      \
        REAL(ssize_t, #name, int, const struct iovec *, int, offset);                    \
        size_t wanted = total(parts, count);                                             \
        ssize_t fits = admit(descriptor, at, wanted);                                    \
        if (fits < 0) return -1;                                                         \
        if ((size_t)fits < wanted) return pwrite(descriptor, parts[0].iov_base, parts[0].iov_len, at); \
        ssize_t written = real(descriptor, parts, count, at);                            \
        wrote(descriptor, at, written);                                                  \
        return written;                                                                  \
    }
PWRITEV(pwritev, off_t)
PWRITEV(pwritev64, off64_t)

/* Callers fall back to reading and writing when the kernel cannot copy by itself. */
ssize_t copy_file_range(int from, off64_t *from_at, int to, off64_t *to_at, size_t count, unsigned flags) {
    REAL(ssize_t, "copy_file_range", int, off64_t *, int, off64_t *, size_t, unsigned);
    if (inside || !*data_folder) return real(from, from_at, to, to_at, count, flags);
    errno = ENOSYS;
    return -1;
}
ssize_t sendfile(int to, int from, off_t *at, size_t count) {
    REAL(ssize_t, "sendfile", int, int, off_t *, size_t);
    char path[PATH_MAX];
    if (inside || !*data_folder || !guarded(to, path)) return real(to, from, at, count);
    errno = EINVAL;
    return -1;
}
ssize_t sendfile64(int to, int from, off64_t *at, size_t count) { return sendfile(to, from, at, count); }

static void resized(int descriptor, off_t size) {
    struct stat status;
    if (inside || !*data_folder || fstat(descriptor, &status)) return;
    pthread_mutex_lock(&lock);
    struct file *file = find(status.st_ino);
    if (file) dirty(file, size, file->size);
    pthread_mutex_unlock(&lock);
}

#define FTRUNCATE(name, offset)                     \
    int name(int descriptor, offset size) {         \
        REAL(int, #name, int, offset);              \
        int outcome = real(descriptor, size);       \
        if (!outcome) resized(descriptor, size);    \
        return outcome;                             \
    }
FTRUNCATE(ftruncate, off_t)
FTRUNCATE(ftruncate64, off64_t)

/* ---- names --------------------------------------------------------------------------------- */

/* A file that loses its last name: its inode may come back as another file. */
static void loses_name(int folder, const char *path) {
    char shadow[PATH_MAX];
    struct stat status;
    if (inside || !*data_folder) return;
    if (fstatat(folder, path, &status, AT_SYMLINK_NOFOLLOW) || !S_ISREG(status.st_mode)) return;
    if (status.st_nlink != 1 || status.st_dev != data_device) return;
    inside = 1;
    pthread_mutex_lock(&lock);
    forget(status.st_ino);
    shadow_of(status.st_ino, "files", shadow);
    unlink(shadow); /* what the tree links to, stays until the folder is synced */
    pthread_mutex_unlock(&lock);
    inside = 0;
}

int unlink(const char *path) {
    REAL(int, "unlink", const char *);
    loses_name(AT_FDCWD, path);
    return real(path);
}
int unlinkat(int folder, const char *path, int flags) {
    REAL(int, "unlinkat", int, const char *, int);
    if (!(flags & AT_REMOVEDIR)) loses_name(folder, path);
    return real(folder, path, flags);
}
int rename(const char *from, const char *to) {
    REAL(int, "rename", const char *, const char *);
    loses_name(AT_FDCWD, to);
    return real(from, to);
}
int renameat(int from_folder, const char *from, int to_folder, const char *to) {
    REAL(int, "renameat", int, const char *, int, const char *);
    loses_name(to_folder, to);
    return real(from_folder, from, to_folder, to);
}
int renameat2(int from_folder, const char *from, int to_folder, const char *to, unsigned flags) {
    REAL(int, "renameat2", int, const char *, int, const char *, unsigned);
    if (!flags) loses_name(to_folder, to);
    return real(from_folder, from, to_folder, to, flags);
}
