#include "tokens.hpp"

#include "check.h"

#include <algorithm>
#include <array>
#include <cctype>

namespace demo {

namespace {

// Longer signs first, so that "<=" is not read as "<".
constexpr std::array<std::string_view, 15> signs = {"==", "!=", "<=", ">=", "&&", "+", "-", "*", "/", "<", ">", "(", ")", ",", "="};

bool in_name(char c)
{
    return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_';
}

bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

std::size_t number_length(std::string_view rest)
{
    std::size_t length = 0;
    bool point = false;
    while (length < rest.size() && (is_digit(rest[length]) || (rest[length] == '.' && !point)))
        point = rest[length++] == '.' || point;
    return length;
}

std::size_t name_length(std::string_view rest)
{
    return static_cast<std::size_t>(std::find_if_not(rest.begin(), rest.end(), in_name) - rest.begin());
}

std::size_t sign_length(std::string_view rest)
{
    const auto begins = [rest](std::string_view sign) { return rest.substr(0, sign.size()) == sign; };
    const auto found = std::find_if(signs.begin(), signs.end(), begins);
    return found == signs.end() ? 0 : found->size();
}

} // namespace

std::vector<Token> tokens_of(std::string_view source)
{
    std::vector<Token> out;
    std::size_t at = 0;
    while (at < source.size()) {
        const std::string_view rest = source.substr(at);
        if (std::isspace(static_cast<unsigned char>(rest[0])) != 0) {
            ++at;
            continue;
        }
        TokenKind kind = TokenKind::Sign;
        std::size_t length = 0;
        if (is_digit(rest[0])) {
            kind = TokenKind::Number;
            length = number_length(rest);
        } else if (in_name(rest[0])) {
            kind = TokenKind::Name;
            length = name_length(rest);
        } else {
            length = sign_length(rest);
        }
        if (length == 0)
            throw SyntaxError(std::string("unknown sign '") + rest[0] + "'", at + 1);
        out.push_back({kind, rest.substr(0, length), at + 1});
        at += length;
    }
    out.push_back({TokenKind::End, {}, at + 1});
    return out;
}

} // namespace demo

extern "C" int demo_check_tokens(void)
{
    using demo::TokenKind;
    const auto tokens = demo::tokens_of("max(x_1, 2.5)<=3 && y");
    const std::array<std::string_view, 11> wanted = {"max", "(", "x_1", ",", "2.5", ")", "<=", "3", "&&", "y", ""};
    CHECK(tokens.size() == wanted.size());
    for (std::size_t i = 0; i < wanted.size(); ++i)
        CHECK(tokens[i].text == wanted[i]);
    CHECK(tokens[4].kind == TokenKind::Number && tokens[6].kind == TokenKind::Sign && tokens[6].column == 14);
    CHECK(tokens.back().kind == TokenKind::End && demo::tokens_of("").size() == 1);
    try {
        demo::tokens_of("a + $b");
        return __LINE__;
    } catch (const demo::SyntaxError &error) {
        CHECK(error.column == 5 && std::string(error.what()) == "unknown sign '$' in column 5");
    }
    return 0;
}
