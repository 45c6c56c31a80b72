// Streams of our own: one that indents, one that counts, one that packs runs.
#include "check.h"

#include <array>
#include <iomanip>
#include <istream>
#include <locale>
#include <ostream>
#include <sstream>
#include <streambuf>
#include <string>

namespace {

// Puts spaces before each line that is not empty.
class Indenting : public std::streambuf {
public:
    Indenting(std::ostream &under, int by) : under_(*under.rdbuf()), by_(by) {}

protected:
    int_type overflow(int_type c) override
    {
        if (traits_type::eq_int_type(c, traits_type::eof()))
            return traits_type::not_eof(c);
        const char sign = traits_type::to_char_type(c);
        if (line_begins_ && sign != '\n')
            for (int i = 0; i < by_; ++i)
                under_.sputc(' ');
        line_begins_ = sign == '\n';
        return under_.sputc(sign);
    }
    int sync() override { return under_.pubsync(); }

private:
    std::streambuf &under_;
    int by_;
    bool line_begins_ = true;
};

// Reads runs such as "3a2b" as "aaabb".
class Unpacking : public std::streambuf {
public:
    explicit Unpacking(std::istream &packed) : packed_(packed) {}

protected:
    int_type underflow() override
    {
        unsigned count = 0;
        char sign = 0;
        if (!(packed_ >> count >> sign) || count > run_.size())
            return traits_type::eof();
        run_.fill(sign);
        setg(run_.data(), run_.data(), run_.data() + count);
        return count == 0 ? underflow() : traits_type::to_int_type(*gptr());
    }

private:
    std::istream &packed_;
    std::array<char, 64> run_{};
};

struct Hex {
    std::string bytes;
};

std::ostream &operator<<(std::ostream &out, const Hex &hex)
{
    const auto flags = out.flags();
    const char fill = out.fill('0');
    for (const unsigned char byte : hex.bytes)
        out << std::hex << std::setw(2) << static_cast<unsigned>(byte);
    out.flags(flags);
    out.fill(fill);
    return out;
}

class Grouped : public std::numpunct<char> {
protected:
    char do_thousands_sep() const override { return '\''; }
    std::string do_grouping() const override { return "\3"; }
};

} // namespace

extern "C" int demo_check_stream(void)
{
    std::ostringstream under;
    Indenting buffer(under, 2);
    std::ostream out(&buffer);
    out << "mesh:\n\npeers " << 3 << "\n" << Hex{std::string("\x01\xff", 2)} << ' ' << 10 << std::flush;
    CHECK(under.str() == "  mesh:\n\n  peers 3\n  01ff 10");

    std::istringstream packed("3a 0x 2b1 c40-");
    Unpacking unpacking(packed);
    std::istream in(&unpacking);
    std::string word;
    in >> word;
    CHECK(word == "aaabbc" + std::string(40, '-') && in.eof());

    std::ostringstream numbers;
    numbers.imbue(std::locale(std::locale::classic(), new Grouped));
    numbers << 1234567 << ' ' << 999;
    CHECK(numbers.str() == "1'234'567 999");
    std::istringstream broken("12 x 13");
    int first = 0, second = 0;
    CHECK(!(broken >> first >> second) && first == 12 && broken.fail() && !broken.bad());
    return 0;
}
