//! The next step in terms of this program's options, where the failure itself speaks in general ones.

use gateway_manager::FailureClass;

use crate::arguments::{Attach, UpArguments};

pub(crate) fn next_step(class: FailureClass, arguments: &UpArguments) -> Option<&'static str> {
    Some(match class {
        FailureClass::PortHeld if arguments.attach == Attach::Never => {
            "take another port with --port N or --port free; when the holder is a gateway that you want to use, --attach if-present"
        }
        FailureClass::PortHeld => "take another port with --port N",
        FailureClass::LockHeld => {
            "stop the other gateway, or use another state directory with --state-dir DIR"
        }
        FailureClass::NewerState => {
            "run the OpenClaw that used this state last, or a newer one, or use another state directory with --state-dir DIR"
        }
        FailureClass::Configuration if arguments.no_repair => {
            "leave out --no-repair to let OpenClaw's doctor repair it once, or correct the file by hand"
        }
        FailureClass::Configuration => {
            "correct the file by hand; --show-output shows what the gateway says about it"
        }
        FailureClass::Credentials => {
            "put the gateway's token into OPENCLAW_GATEWAY_TOKEN, or into a file named with --token-file"
        }
        FailureClass::PairingRequired => {
            "approve this device on the gateway: `openclaw devices list`, then `openclaw devices approve`"
        }
        FailureClass::InvalidSettings if arguments.command.is_some() => {
            "check --command; the program stands there alone, each of its arguments in a --command-arg of its own"
        }
        FailureClass::Temporary if arguments.attach == Attach::Only => {
            "start the gateway, name its port with --port N, or launch one by leaving out --attach only"
        }
        FailureClass::Temporary
        | FailureClass::NotReady
        | FailureClass::Unresponsive
        | FailureClass::Unknown => {
            "--show-output shows what the gateway prints, --log debug what gatewayctl does"
        }
        _ => return None,
    })
}
