// Regular expressions: reads the first lines of compilers' messages.
#include "check.h"

#include <iterator>
#include <optional>
#include <regex>
#include <string>
#include <vector>

namespace {

struct Message {
    std::string file, severity, text;
    unsigned line, column;
};

std::optional<Message> read_message(const std::string &line)
{
    static const std::regex form(R"(^([^:\s][^:]*):(\d+):(?:(\d+):)?\s+(error|warning|note):\s+(.*)$)");
    std::smatch parts;
    if (!std::regex_match(line, parts, form))
        return std::nullopt;
    const auto number = [](const std::ssub_match &part) {
        return part.matched ? static_cast<unsigned>(std::stoul(part.str())) : 0u;
    };
    return Message{parts[1], parts[4], parts[5], number(parts[2]), number(parts[3])};
}

std::vector<std::string> options_named(const std::string &text)
{
    static const std::regex option(R"(\[(-W[\w=+-]+)(?:,(-W[\w=+-]+))?\])");
    std::vector<std::string> out;
    for (auto found = std::sregex_iterator(text.begin(), text.end(), option); found != std::sregex_iterator(); ++found)
        for (std::size_t group = 1; group < found->size(); ++group)
            if ((*found)[group].matched)
                out.push_back((*found)[group]);
    return out;
}

std::string without_colour(const std::string &text)
{
    static const std::regex colour("\x1b\\[[0-9;]*[mK]");
    return std::regex_replace(text, colour, "");
}

std::vector<std::string> split(const std::string &text, const std::regex &separator)
{
    return {std::sregex_token_iterator(text.begin(), text.end(), separator, -1), std::sregex_token_iterator()};
}

} // namespace

extern "C" int demo_check_patterns(void)
{
    const auto warning = read_message("src/a b.c:12:7: warning: unused variable 'x' [-Wunused-variable]");
    CHECK(warning && warning->file == "src/a b.c" && warning->line == 12 && warning->column == 7);
    CHECK(warning->severity == "warning" && options_named(warning->text) == std::vector<std::string>{"-Wunused-variable"});
    const auto error = read_message("x.h:3: error: expected ';'");
    CHECK(error && error->column == 0 && error->severity == "error");
    for (const char *line : {"In file included from x.c:1:", "x.c: In function 'f':", "    3 | int f(", ""})
        CHECK(!read_message(line));
    CHECK(options_named("a [-Werror,-Wshadow] b [-Wformat=2] [x]") == (std::vector<std::string>{"-Werror", "-Wshadow", "-Wformat=2"}));
    CHECK(without_colour("\x1b[01;31m\x1b[Kerror:\x1b[m done") == "error: done");
    CHECK(split("a, b;c ,d", std::regex(R"(\s*[,;]\s*)")) == (std::vector<std::string>{"a", "b", "c", "d"}));
    return 0;
}
