/* Bytes of data files. See byte_stream.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>
#include "base/error.h"
#include "base/file.h"
#include "base/text.h"
#include "rows/byte_stream.h"

#define RAW_BYTES 65536
#define HEAD_BYTES 512  // what a file is shows in its first bytes

typedef enum { UTF8, UTF16_LITTLE, UTF16_BIG } TextEncoding;

struct ByteStream {
    char path[PATH_ROOM];
    int64_t size;     // on disk
    gzFile plain;     // also of what is not compressed; NULL: zstd
    int packed;       // descriptor of a zstd file
    int64_t on_disk;  // bytes read from it
    ZSTD_DStream* zstd;
    ZSTD_inBuffer in;
    unsigned char* disk;  // of `packed`
    bool frame_open;      // the zstd frame begun has not ended
    uint64_t base;        // bytes that came out of the decompression
    TextEncoding encoding;
    unsigned char* raw;  // [at, filled): decompressed bytes that are not handed on yet
    size_t at, filled;
    unsigned high;  // UTF-16: first half of a pair
    unsigned char out[8];
    size_t n_out;  // UTF-8 that did not fit the caller's buffer
};

// ---------------------------------------------------------------------------------------------------
// decompressed bytes

static size_t read_plain(ByteStream* s, unsigned char* out, size_t n) {
    int got = gzread(s->plain, out, (unsigned)n), code;
    if (got < 0 || (got == 0 && !gzeof(s->plain))) {
        const char* why = gzerror(s->plain, &code);
        fatal("%s cannot be read after byte %llu: %s", s->path, (unsigned long long)s->base,
              code == Z_ERRNO ? strerror(errno) : why);
    }
    if (got == 0) {
        // gzeof is also true where a .gz ends too early; only the error code tells them apart
        gzerror(s->plain, &code);
        if (code == Z_BUF_ERROR) fatal("%s: the compressed file is cut off; get it again", s->path);
    }
    return (size_t)got;
}

static size_t read_zstd(ByteStream* s, unsigned char* out, size_t n) {
    ZSTD_outBuffer to = {out, n, 0};
    while (to.pos == 0) {
        if (s->in.pos == s->in.size) {
            ssize_t got = read(s->packed, s->disk, RAW_BYTES);
            if (got < 0)
                fatal("%s cannot be read after byte %llu: %s", s->path, (unsigned long long)s->base, strerror(errno));
            s->in = (ZSTD_inBuffer){s->disk, (size_t)got, 0};
            s->on_disk += got;
            if (!s->in.size && s->frame_open) fatal("%s: the compressed file is cut off; get it again", s->path);
            if (!s->in.size) return 0;
        }
        size_t left = ZSTD_decompressStream(s->zstd, &to, &s->in);
        if (ZSTD_isError(left))
            fatal("%s cannot be read after byte %llu: %s", s->path, (unsigned long long)s->base,
                  ZSTD_getErrorName(left));
        s->frame_open = left != 0;
    }
    return to.pos;
}

static size_t read_raw(ByteStream* s, unsigned char* out, size_t n) {
    size_t got = s->plain ? read_plain(s, out, n) : read_zstd(s, out, n);
    s->base += got;
    return got;
}

// ---------------------------------------------------------------------------------------------------
// what the first bytes say

// Files that a user may well name as data and that hold no records as text.
static const struct {
    const char* begin;
    size_t n;
    const char* what;
} refused[] = {
    {"PAR1", 4, "a Parquet file; python3 data/parquet.py FILE turns it into JSONL"},
    {"ARROW1", 6, "an Arrow file; python3 data/parquet.py FILE turns it into JSONL"},
    {"PK\3\4", 4, "a zip archive (or an Excel workbook); unpack it, or save it as .csv"},
    {"BZh", 3, "compressed with bzip2; unpack it, or compress it with gzip or zstd"},
    {"\xFD"
     "7zXZ",
     6, "compressed with xz; unpack it, or compress it with gzip or zstd"},
    {"\x89HDF", 4, "an HDF5 file; save its rows as .jsonl"},
    {"\x80\4\x95", 3, "a Python pickle; save its rows as .jsonl"},
    {"%PDF", 4, "a PDF"},
    {"SQLite format 3", 15, "an SQLite database; save its rows as .jsonl"},
    {"\xFF\xFE\0\0", 4, "UTF-32 text; save it as UTF-8"},
    {"\0\0\xFE\xFF", 4, "UTF-32 text; save it as UTF-8"},
};

static void look_at_head(ByteStream* s) {
    const unsigned char* h = s->raw;
    while (s->filled < HEAD_BYTES) {
        size_t got = read_raw(s, s->raw + s->filled, HEAD_BYTES - s->filled);
        if (!got) break;
        s->filled += got;
    }
    size_t n = s->filled;
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
        if (n >= refused[i].n && !memcmp(h, refused[i].begin, refused[i].n))
            fatal("%s is %s", s->path, refused[i].what);
    if (n > 262 && !memcmp(h + 257, "ustar", 5)) fatal("%s is a tar archive; unpack it", s->path);
    // With a byte order mark, or by the zeros beside the first two characters, which are ASCII in JSON and in a header.
    if (n >= 2 && ((h[0] == 0xFF && h[1] == 0xFE) || (n >= 4 && h[0] && !h[1] && h[2] && !h[3])))
        s->encoding = UTF16_LITTLE;
    else if (n >= 2 && ((h[0] == 0xFE && h[1] == 0xFF) || (n >= 4 && !h[0] && h[1] && !h[2] && h[3])))
        s->encoding = UTF16_BIG;
}

ByteStream* bytes_open(const char* path) {
    unsigned char magic[4] = {0};
    struct stat info;
    ByteStream* s = host_alloc(sizeof *s, "a reader");
    s->raw = host_alloc(RAW_BYTES, "a reader");
    path_copy(s->path, path);
    if (stat(path, &info)) fatal("%s cannot be read: %s", path, strerror(errno));
    if (S_ISDIR(info.st_mode)) fatal("%s is a directory; expected a data file", path);
    if (!S_ISREG(info.st_mode)) fatal("%s: not a regular file; a data file is read more than once", path);
    refuse_lfs_pointer(path);
    s->size = info.st_size;
    s->packed = open(path, O_RDONLY | O_CLOEXEC);
    if (s->packed < 0) fatal("%s cannot be read: %s", path, strerror(errno));
    ssize_t got = pread(s->packed, magic, sizeof magic, 0);
    // a frame, or one to be skipped before it
    if (got == 4 && (!memcmp(magic, "\x28\xB5\x2F\xFD", 4) ||
                     ((magic[0] & 0xF0) == 0x50 && !memcmp(magic + 1, "\x2A\x4D\x18", 3)))) {
        s->zstd = host_made(ZSTD_createDStream(), "zstd");
        s->disk = host_alloc(RAW_BYTES, "a reader");
    } else {
        close(s->packed);
        s->packed = -1;
        s->plain = gzopen(path, "rb");
        if (!s->plain) fatal("%s cannot be read: %s", path, errno ? strerror(errno) : "out of host memory for zlib");
        gzbuffer(s->plain, RAW_BYTES);
    }
    look_at_head(s);
    return s;
}

void bytes_close(ByteStream* s) {
    if (!s) return;
    if (s->plain) gzclose(s->plain);
    if (s->packed >= 0) close(s->packed);
    ZSTD_freeDStream(s->zstd);
    free(s->disk);
    free(s->raw);
    free(s);
}

bool bytes_utf16(const ByteStream* s) { return s->encoding != UTF8; }
void bytes_progress(const ByteStream* s, int64_t* done, int64_t* total) {
    *done = s->plain ? (int64_t)gzoffset(s->plain) : s->on_disk;
    *total = s->size;
}

// ---------------------------------------------------------------------------------------------------
// UTF-16 to UTF-8

static size_t put_character(unsigned c, unsigned char* out) {
    if (c < 0x80) {
        out[0] = (unsigned char)c;
        return 1;
    }
    size_t n = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (size_t i = n - 1; i > 0; i--, c >>= 6) out[i] = (unsigned char)(0x80 | (c & 0x3F));
    out[0] = (unsigned char)(c | (n == 2 ? 0xC0 : n == 3 ? 0xE0 : 0xF0));
    return n;
}

// The next unit's UTF-8 to s->out: nothing of the first half of a pair; a half without the other is U+FFFD.
static void next_unit(ByteStream* s) {
    const unsigned char* p = s->raw + s->at;
    unsigned c = s->encoding == UTF16_LITTLE ? p[0] | (unsigned)p[1] << 8 : p[1] | (unsigned)p[0] << 8;
    s->at += 2;
    bool low = c >= 0xDC00 && c < 0xE000, high = c >= 0xD800 && c < 0xDC00;
    s->n_out = 0;
    if (s->high && low) s->n_out = put_character(0x10000 + ((s->high - 0xD800) << 10) + (c - 0xDC00), s->out);
    else {
        if (s->high) s->n_out = put_character(0xFFFD, s->out);
        if (!high) s->n_out += put_character(low ? 0xFFFD : c, s->out + s->n_out);
    }
    s->high = high ? c : 0;
}

// False at the end of the file.
static bool have_unit(ByteStream* s) {
    if (s->filled - s->at >= 2) return true;
    size_t left = s->filled - s->at;
    memmove(s->raw, s->raw + s->at, left);
    s->at = 0;
    s->filled = left;
    while (s->filled < 2) {
        size_t got = read_raw(s, s->raw + s->filled, RAW_BYTES - s->filled);
        if (!got && s->filled) fatal("%s: its UTF-16 text ends inside a character; get it again", s->path);
        if (!got) return false;
        s->filled += got;
    }
    return true;
}

static size_t read_utf16(ByteStream* s, unsigned char* out, size_t n) {
    size_t got = 0;
    for (;;) {
        size_t take = s->n_out < n - got ? s->n_out : n - got;
        memcpy(out + got, s->out, take);
        memmove(s->out, s->out + take, s->n_out - take);
        s->n_out -= take;
        got += take;
        if (got == n) return got;
        if (have_unit(s)) next_unit(s);
        else if (s->high) {
            s->high = 0;
            s->n_out = put_character(0xFFFD, s->out);
        } else return got;
    }
}

size_t bytes_read(ByteStream* s, unsigned char* out, size_t n) {
    if (s->encoding != UTF8) return read_utf16(s, out, n);
    if (s->at == s->filled) return read_raw(s, out, n);
    size_t take = s->filled - s->at < n ? s->filled - s->at : n;
    memcpy(out, s->raw + s->at, take);
    s->at += take;
    return take;
}
