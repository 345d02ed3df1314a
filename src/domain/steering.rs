//! Names of variables that choose what a program loads, runs or reaches, whatever its command is.
//!
//! Whoever may set a worker's variables may not thereby choose its code, or whom it talks to: an operator's template may set
//! these, a command may not. The list is that of glibc's `unsecvars.h` (what the loader drops in a set-user-id program) and
//! of sudo's `initial_badenv_table` (what it drops for loaders, shells and interpreters), both as far as they concern a
//! program's code; and what the manuals of other runtimes say of the same kind. `TMPDIR` and `TERM…` choose no code.

/// Everything that starts so.
const STARTS: [&str; 10] =
    ["LD_", "DYLD_", "_RLD", "LDR_", "ENLIST_", "BASH_FUNC_", "GIT_", "CORECLR_", "COR_", "NPM_CONFIG_"];

/// By whom they are read: glibc, other libraries, shells, then a line or two a runtime.
const NAMES: [&str; 95] = [
    "GCONV_PATH",
    "GETCONF_DIR",
    "GLIBC_TUNABLES",
    "HOSTALIASES",
    "LOCALDOMAIN",
    "LOCPATH",
    "MALLOC_TRACE",
    "NIS_PATH",
    "NLSPATH",
    "RESOLV_HOST_CONF",
    "RES_OPTIONS",
    "TZDIR",
    "PATH_LOCALE",
    "SHLIB_PATH",
    "LIBPATH",
    "AUTHSTATE",
    "KRB5_CONFIG",
    "KRB5_KTNAME",
    "OPENSSL_CONF",
    "OPENSSL_ENGINES",
    "OPENSSL_MODULES",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "CURL_CA_BUNDLE",
    "CURL_HOME",
    "REQUESTS_CA_BUNDLE",
    "WGETRC",
    "PATH",
    "ENV",
    "IFS",
    "CDPATH",
    "BASH_ENV",
    "BASHOPTS",
    "SHELLOPTS",
    "PS4",
    "PROMPT_COMMAND",
    "GLOBIGNORE",
    "FPATH",
    "NULLCMD",
    "READNULLCMD",
    "ZDOTDIR",
    "SHELL",
    "EDITOR",
    "VISUAL",
    "PAGER",
    "LESSOPEN",
    "LESSCLOSE",
    "MAKEFLAGS",
    "PYTHONPATH",
    "PYTHONHOME",
    "PYTHONSTARTUP",
    "PYTHONINSPECT",
    "PYTHONUSERBASE",
    "PYTHONBREAKPOINT",
    "PYTHONWARNINGS",
    "PYTHONEXECUTABLE",
    "PYTHONPLATLIBDIR",
    "PYTHONPYCACHEPREFIX",
    "PIP_CONFIG_FILE",
    "PIP_INDEX_URL",
    "NODE_OPTIONS",
    "NODE_PATH",
    "NODE_EXTRA_CA_CERTS",
    "NODE_REPL_EXTERNAL_MODULE",
    "DENO_DIR",
    "BUN_OPTIONS",
    "PERLLIB",
    "PERL5LIB",
    "PERL5OPT",
    "PERL5DB",
    "PERLIO_DEBUG",
    "RUBYLIB",
    "RUBYOPT",
    "GEM_HOME",
    "GEM_PATH",
    "BUNDLE_GEMFILE",
    "JAVA_TOOL_OPTIONS",
    "JDK_JAVA_OPTIONS",
    "_JAVA_OPTIONS",
    "CLASSPATH",
    "DOTNET_STARTUP_HOOKS",
    "DOTNET_ADDITIONAL_DEPS",
    "DOTNET_SHARED_STORE",
    "LUA_PATH",
    "LUA_CPATH",
    "LUA_INIT",
    "PHPRC",
    "PHP_INI_SCAN_DIR",
    "R_PROFILE",
    "R_PROFILE_USER",
    "R_ENVIRON",
    "R_ENVIRON_USER",
    "R_LIBS",
    "ERL_FLAGS",
    "ERL_LIBS",
];

/// Whether a variable of this name steers what a program runs or reaches.
#[must_use]
pub fn steers(name: &str) -> bool {
    // In either case: curl, Python and others read `http_proxy`, Go and others `HTTP_PROXY`.
    let upper = name.to_ascii_uppercase();
    upper.ends_with("_PROXY")
        || upper.starts_with("NPM_CONFIG_")
        || STARTS.iter().any(|start| name.starts_with(start))
        || NAMES.contains(&name)
}

/// Why these variables are not a command's to set.
#[must_use]
pub fn steering(names: &[&str]) -> String {
    let (steer, them) = if names.len() == 1 { ("steers", "it") } else { ("steer", "them") };
    format!(
        "spec.env: found {}, which {steer} a loader, a shell, a runtime, a proxy or enlist: only the pool's settings may set \
         {them}",
        names.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_a_loader_a_shell_a_runtime_or_enlist_is_known() {
        for name in [
            "LD_PRELOAD",
            "LD_LIBRARY_PATH",
            "DYLD_INSERT_LIBRARIES",
            "PATH",
            "BASH_ENV",
            "ENV",
            "IFS",
            "PYTHONPATH",
            "NODE_OPTIONS",
            "http_proxy",
            "No_Proxy",
            "ALL_PROXY",
            "BASH_FUNC_ls",
            "GIT_SSH_COMMAND",
            "ENLIST_INSTANCE",
            "npm_config_registry",
            "JAVA_TOOL_OPTIONS",
            "GLIBC_TUNABLES",
        ] {
            assert!(steers(name), "{name}");
        }
    }

    #[test]
    fn a_worker_s_own_variables_are_free() {
        for name in
            ["PORT", "env", "MY_PATH", "LDAP_URL", "PROXY", "X_PROXY_", "PYTHONUNBUFFERED", "TMPDIR", "TZ", "HOME"]
        {
            assert!(!steers(name), "{name}");
        }
    }
}
