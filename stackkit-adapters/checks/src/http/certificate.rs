//! What is wrong with a server's certificate, in own words, and when it ends.

use rustls::CertificateError;

/// What is wrong, for public text.
pub(crate) fn certificate_words(error: &CertificateError) -> &'static str {
    words_and_code(error).0
}

/// What is wrong, as a stable code.
pub(crate) fn certificate_code(error: &CertificateError) -> &'static str {
    words_and_code(error).1
}

fn words_and_code(error: &CertificateError) -> (&'static str, &'static str) {
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            ("the server's certificate has expired", "certificate.expired")
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            ("the server's certificate is not valid yet: look at both clocks", "certificate.not_yet_valid")
        }
        // A bad signature is what an authority looks like that was made anew under its old name.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            ("the server's certificate is of no authority that is trusted here", "certificate.unknown_issuer")
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            ("the server's certificate is for another host", "certificate.wrong_host")
        }
        CertificateError::Revoked => ("the server's certificate was revoked", "certificate.revoked"),
        _ => ("the server's certificate is not valid", "certificate.invalid"),
    }
}
